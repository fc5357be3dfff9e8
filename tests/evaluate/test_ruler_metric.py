"""RULER's string match and its clean-up."""

import json
import sys

import pytest

from evaluate import ruler_metric
from evaluate.ruler_metric import match_of_task, postprocess, string_match_all, string_match_part
from evaluate.scoring import score_predictions
from utils.common_utils import UserError


@pytest.mark.parametrize(
    "text, cleaned",
    [
        ("  83 \n", "83"),
        ("a\tb\x00c\r\nd", "a\nb\nc\n\nd"),
        ("\u2028 x \u00a0", "x"),
        # What the replacement brings to the edges is stripped as well; DEL and C1 controls stay.
        ("\x01 x \x02", "x"),
        ("x\x7fy\x85z", "x\x7fy\x85z"),
        ("\x00", ""),
    ],
)
def test_postprocess(text, cleaned):
    assert postprocess(text) == cleaned


@pytest.mark.parametrize(
    "prediction, references, every, some",
    [
        ("found 12 and 34", ["12", "34", "56"], 2 / 3, 1.0),
        ("KEY abc", ["key ABC"], 1.0, 1.0),
        ("nothing", ["12", "34"], 0.0, 0.0),
        ("", ["12"], 0.0, 0.0),
        # Characters, not words or numbers.
        ("a pineapple", ["apple", "pine"], 1.0, 1.0),
        ("91234", ["123"], 1.0, 1.0),
        ("1,234", ["1234"], 0.0, 0.0),
        # Repeated references count each.
        ("12", ["12", "12", "7"], 2 / 3, 1.0),
        # A reference with a tab meets a prediction whose tab became a line end.
        ("a\tb", ["a\tb"], 0.0, 0.0),
        # An empty reference is always found.
        ("x", [""], 1.0, 1.0),
    ],
)
def test_string_match(prediction, references, every, some):
    assert string_match_all(prediction, references) == pytest.approx(every)
    assert string_match_part(prediction, references) == some


@pytest.mark.parametrize("score", [string_match_all, string_match_part])
def test_no_reference_is_an_error(score):
    with pytest.raises(UserError, match="no reference"):
        score("x", [])


def test_the_task_decides_the_match():
    for name in ("niah_single_1", "niah_multikey_3", "vt", "cwe", "fwe", "ruler_vt", "ruler/niah_multivalue@4096"):
        assert match_of_task(name) is string_match_all, name
    for name in ("qa_1", "qa_2", "ruler_qa_2_4096"):
        assert match_of_task(name) is string_match_part, name
    for name in ("quality", "narrativeqa", "qasper"):
        with pytest.raises(UserError, match="no RULER task"):
            match_of_task(name)


def record(number: int, task: str, prediction: str, references: list[str], **meta) -> dict:
    parts = {"task": task, "id": str(number), "mode": "model", "prediction": prediction}
    return {**parts, "references": references, "meta": meta}


def test_the_metric_takes_the_task_from_meta_or_the_record():
    rows = [
        record(0, "vt", "one", ["one", "two"]),
        record(1, "long", "one", ["one", "two"], ruler_task="qa_1"),
        record(2, "vt", "one", []),
    ]
    score = score_predictions(rows, ["ruler"])["overall"]["scores"]["ruler"]
    assert score["value"] == 75.0 and score["n"] == 2
    with pytest.raises(UserError, match="'summary', id '3'.*no RULER task"):
        score_predictions([record(3, "summary", "x", ["y"])], ["ruler"])


def test_command_line(tmp_path, monkeypatch, capsys):
    rows = [record(0, "vt", "one", ["one", "two"], length=4096), record(1, "vt", "x", ["y"], length=8192)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["--predictions", str(tmp_path / "p.jsonl"), "--by", "meta.length"]
    monkeypatch.setattr(sys, "argv", ["ruler_metric", *arguments])
    ruler_metric.main()
    lines = capsys.readouterr().out.splitlines()
    assert any("4096" in line and "50.0" in line for line in lines)
    assert any("(all)" in line and "25.0" in line for line in lines)
