"""LongBench v2: reading the answer, and the metric."""

import json
import sys

import pytest

from evaluate import longbench_v2
from evaluate.longbench_v2 import extract_answer
from evaluate.scoring import score_predictions
from utils.common_utils import UserError


@pytest.mark.parametrize(
    "response, letter",
    [
        ("The correct answer is (C).", "C"),
        ("The correct answer is C", "C"),
        ("So: **The correct answer is (D)**", "D"),
        ("The **correct** answer is *(B)*", "B"),
        # The form in brackets is looked for in the whole text first; then the first one counts.
        ("The correct answer is A, or rather: The correct answer is (B)", "B"),
        ("The correct answer is (A). The correct answer is (B).", "A"),
        # Strict, and yet fooled by a word.
        ("The correct answer is Dallas", "D"),
        ("the correct answer is (A)", None),
        ("The correct answer is: (A)", None),
        ("The correct answer is (a)", None),
        ("The correct answer is ( A )", None),
        ("The correct answer is (E)", None),
        ("The correct answer is option A", None),
        ("The correct  answer is (A)", None),
        ("(A)", None),
        ("A", None),
        ("", None),
    ],
)
def test_extract_answer(response, letter):
    assert extract_answer(response) == letter


def record(number: int, prediction: str, gold: str, **meta) -> dict:
    parts = {"task": "longbench_v2", "id": str(number), "mode": "model", "prediction": prediction}
    return {**parts, "references": [gold] if gold else [], "meta": meta}


def test_the_metric_has_the_six_columns_of_the_table():
    rows = [
        record(0, "The correct answer is (A)", "A", difficulty="easy", length="short"),
        record(1, "A", "A", difficulty="easy", length="short"),
        record(2, "The correct answer is (C)", "B", difficulty="hard", length="medium"),
    ]
    scores = score_predictions(rows, ["longbench_v2"])["overall"]["scores"]
    values = {label.removeprefix("longbench_v2."): score["value"] for label, score in scores.items()}
    assert values.pop("no_answer") == pytest.approx(100 / 3)
    # A missing answer counts a quarter: (1 + 0.25) / 3.
    assert values.pop("compensated") == pytest.approx(100 * 1.25 / 3)
    assert values.pop("longbench_v2") == pytest.approx(100 / 3)
    assert values == {"easy": 50.0, "hard": 0.0, "short": 50.0, "medium": 0.0, "long": None}
    assert scores["longbench_v2.long"] == {"value": None, "low": None, "high": None, "n": 0}


def test_what_is_no_item_of_the_benchmark_is_named():
    with pytest.raises(UserError, match="id '4'.*'Paris'"):
        score_predictions([record(4, "A", "Paris")], ["longbench_v2"])
    with pytest.raises(UserError, match="id '5'.*meta.length='tiny'.*short, medium, long"):
        score_predictions([record(5, "A", "A", length="tiny")], ["longbench_v2"])
    assert score_predictions([record(6, "A", "")], ["longbench_v2"])["overall"]["scores"]["longbench_v2"]["n"] == 0


def test_command_line(tmp_path, monkeypatch, capsys):
    row = record(0, "The correct answer is (A)", "A", difficulty="easy", length="short")
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    monkeypatch.setattr(sys, "argv", ["longbench_v2", "--predictions", str(tmp_path / "p.jsonl")])
    longbench_v2.main()
    header, _, line = capsys.readouterr().out.splitlines()
    assert [cell.strip() for cell in header.split("|")][4:10] == [
        "longbench_v2",
        *(f"longbench_v2.{name}" for name in ("easy", "hard", "short", "medium", "long")),
    ]
    assert line.count("100.0") == 4
