"""RULER's table by length, and the means of its groups."""

import json
import sys

import pytest

from evaluate import ruler_table as module
from evaluate.ruler_table import ALL_TASKS, GROUPS, format_ruler_table, ruler_table
from utils.common_utils import UserError


def record(number: int, task: str, length, prediction: str, references=("a", "b"), mode: str = "model") -> dict:
    parts = {"task": "ruler", "id": str(number), "mode": mode, "prediction": prediction, "references": list(references)}
    return {**parts, "meta": {"ruler_task": task, "length": length}}


def full_table(length: int) -> list[dict]:
    """Every task once; only the first of the needle tasks, vt, and the first of the others are right."""
    right = {"niah_single_1", "vt", "cwe", "qa_1"}
    return [record(n, task, length, "a b" if task in right else "-") for n, task in enumerate(ALL_TASKS)]


def test_the_groups_hold_every_task_once():
    assert len(ALL_TASKS) == len(set(ALL_TASKS)) == 13 and len(GROUPS["NIAH"]) == 8


def test_groups_are_means_of_their_tasks():
    table = ruler_table(full_table(4096))
    assert table.lengths == (4096,)
    values = {name: score.value for (name, _), score in table.groups.items()}
    assert values == {"NIAH": 12.5, "VT": 100, "CWE+FWE": 50, "QA": 50, "all 13": pytest.approx(400 / 13)}


def test_every_task_weighs_the_same_whatever_its_examples():
    rows = [record(n, "qa_1", 8192, "a") for n in range(3)] + [record(3, "qa_2", 8192, "-")]
    rows += [record(4, "cwe", 8192, "a"), record(5, "cwe", 8192, "-"), record(6, "cwe", 8192, "a b")]
    table = ruler_table(rows)
    assert table.tasks["qa_1", 8192].value == 100 and table.tasks["qa_1", 8192].num_examples == 3
    assert table.groups["QA", 8192].value == 50 and table.groups["QA", 8192].num_examples == 4
    # All references are asked for in cwe, any one in qa.
    assert table.tasks["cwe", 8192].value == 50
    thirds = ruler_table(
        [record(0, "vt", 1, "a", "abc"), record(1, "vt", 1, "x", "abc"), record(2, "vt", 1, "x", "abc")]
    )
    assert thirds.tasks["vt", 1].value == 11.11


def test_text():
    rows = [*full_table(4096), record(90, "vt", 131072, "a"), record(91, "niah_single_1", 131072, "a b")]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in format_ruler_table(ruler_table(rows)).splitlines()
    ]
    assert lines[0] == ["task", "4,096", "131,072"]
    cells = {line[0]: line[1:] for line in lines[2:]}
    assert cells["vt"] == ["100.00", "50.00"] and cells["cwe"] == ["100.00", "–"]
    assert cells["NIAH (mean)"] == ["12.50", "100.00 (1 of 8)"]
    assert cells["QA (mean)"] == ["50.00", "–"]
    assert cells["all 13 (mean)"] == ["30.77", "75.00 (2 of 13)"]


def test_examples_without_a_reference_are_left_out():
    table = ruler_table([record(0, "vt", 1, "a b"), record(1, "vt", 1, "-", [])])
    assert table.tasks["vt", 1].value == 100 and table.tasks["vt", 1].num_examples == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (record(7, "summary", 1, "x"), "id '7': .*'summary' is no"),
        (record(7, "niah", 1, "x"), "id '7': 'niah' is none of RULER's tasks"),
        (record(7, "vt", None, "x"), "id '7': meta.length is None, no whole number"),
    ],
)
def test_records_that_fit_no_table(row, message):
    with pytest.raises(UserError, match=message):
        ruler_table([row])


def test_command_line(tmp_path, monkeypatch, capsys):
    rows = [*full_table(4096), record(0, "vt", 4096, "-", mode="closed_book")]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / "scores.json"
    monkeypatch.setattr(sys, "argv", ["x", "--predictions", str(tmp_path / "p.jsonl"), "--output", str(output)])
    module.main()
    printed = capsys.readouterr().out
    assert "model: RULER's string match (%) by length, 13 predictions" in printed and "| NIAH (mean)" in printed
    scores = json.loads(output.read_text())
    assert {"name": "QA", "length": 4096, "value": 50.0, "num_examples": 2, "num_tasks": 2} in scores["model"]
    assert scores["closed_book"][0]["value"] == 0
    (tmp_path / "p.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no prediction"):
        module.main()
