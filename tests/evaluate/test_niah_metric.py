"""Scores of needle answers, and the table length x depth."""

import json
import sys

import pytest

from evaluate import niah_metric
from evaluate.niah_metric import depth_grid, grid_table, keyword_recall, needle_exact, needle_substring
from evaluate.scoring import score_predictions
from utils.common_utils import UserError

PARK = "eat a sandwich and sit in Dolores Park on a sunny day"


@pytest.mark.parametrize(
    ("prediction", "references", "substring", "exact", "keywords"),
    [
        ("dancing", ["dancing"], 1, 1, 1),
        ("She was fond of Dancing.", ["dancing"], 1, 0, 1),
        ("The dancing!", ["dancing"], 1, 1, 1),
        ("pineapple", ["apple"], 1, 0, 0),
        ("bass  drum", ["Bass drum"], 1, 1, 1),
        ("", ["dancing"], 0, 0, 0),
        (f"You should {PARK}.", [PARK], 1, 0, 1),
        ("Sit in Dolores Park and eat a sandwich", [PARK], 0, 0, 5 / 7),
        # Several needles: all are asked for, in any order.
        ("1, 2", ["1", "2"], 1, 1, 1),
        ("2 and 1", ["1", "2"], 1, 1, 1),
        ("1", ["1", "2"], 0.5, 0, 0.5),
        ("1, 2 and 3", ["1", "2"], 1, 0, 1),
        ("1, 1", ["1", "2"], 0.5, 0, 0.5),
        ("1,000 and 2,000", ["1,000", "2,000"], 1, 1, 1),
        # Nothing but function words: they count, since there is nothing else.
        ("it is not", ["not"], 1, 0, 1),
    ],
)
def test_scores(prediction, references, substring, exact, keywords):
    assert needle_substring(prediction, references) == pytest.approx(substring)
    assert needle_exact(prediction, references) == exact
    assert keyword_recall(prediction, references) == pytest.approx(keywords)


@pytest.mark.parametrize("function", [needle_substring, needle_exact, keyword_recall])
def test_no_reference_is_an_error(function):
    with pytest.raises(UserError, match="no reference to score the prediction 'x'"):
        function("x", [])


def record(number: int, length, depth, prediction: str = "yes", task: str = "needle", **meta) -> dict:
    parts = {"task": task, "id": str(number), "mode": "model", "prediction": prediction, "references": ["yes"]}
    return {**parts, "meta": {"length": length, "depth": depth, "unit": "tokens", **meta}}


RECORDS = [
    record(0, 1000, 0),
    record(1, 1000, 0, "no"),
    record(2, 1000, 100),
    record(3, 4000, 0, "no"),
    record(4, 4000, 50.5, "well, yes"),
]


def test_grid():
    grid = depth_grid(RECORDS)
    assert grid.lengths == (1000, 4000) and grid.depths == (0, 50.5, 100)
    assert grid.values == {(1000, 0): 50, (1000, 100): 100, (4000, 0): 0, (4000, 50.5): 100}
    assert grid.counts[1000, 0] == 2
    # Means are over predictions, not over cells.
    assert grid.mean(length=1000) == pytest.approx(200 / 3) and grid.mean(depth=0) == pytest.approx(100 / 3)
    assert grid.mean() == 60 and grid.mean(length=4000, depth=100) is None
    assert depth_grid(RECORDS, "exact").mean() == 40
    assert depth_grid([*RECORDS, record(5, 9000, 0) | {"references": []}]).lengths == (1000, 4000)


def test_table():
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in grid_table(depth_grid(RECORDS)).splitlines()
    ]
    assert lines[0] == ["tokens", "n", "0 %", "50.5 %", "100 %", "all"]
    assert lines[2] == ["1,000", "3", "50.0", "–", "100.0", "66.7"]
    assert lines[3] == ["4,000", "2", "0.0", "100.0", "–", "50.0"]
    assert lines[4] == ["all", "5", "33.3", "100.0", "100.0", "60.0"]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (record(9, None, 0), "id '9': meta.length is None, no number"),
        (record(9, 10, "deep"), "id '9': meta.depth is 'deep', no number"),
        (record(9, 10, 0, unit="chunks"), "lengths in chunks and tokens do not go into one table"),
    ],
)
def test_records_that_fit_no_table(extra, message):
    with pytest.raises(UserError, match=message):
        depth_grid([*RECORDS, extra])


def test_an_unknown_score_is_refused():
    with pytest.raises(UserError, match="score 'rouge' is not one of substring"):
        depth_grid(RECORDS, "rouge")


def test_the_metric_is_registered_and_leaves_out_what_has_no_reference():
    rows = [*RECORDS, record(5, 1, 1) | {"references": []}]
    scores = score_predictions(rows, ["needle"], group_by=["meta.length"])
    assert scores["overall"]["scores"]["needle.substring"]["value"] == 60
    assert scores["overall"]["scores"]["needle.exact"] == scores["overall"]["scores"]["needle.exact"] | {
        "value": 40,
        "n": 5,
    }


def test_command_line(tmp_path, monkeypatch, capsys):
    other = [record(0, 1000, 0, task="other task") | {"mode": "truncated"}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*RECORDS, *other]))
    arguments = ["--predictions", str(tmp_path / "p.jsonl"), "--heatmap_dir", str(tmp_path / "plots")]
    monkeypatch.setattr(sys, "argv", ["niah_metric", *arguments, "--score", "exact"])
    niah_metric.main()
    output = capsys.readouterr().out
    assert "needle, model: needle.exact by length and depth" in output and "| 66.7 |" in output
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "heatmap_needle_model.png",
        "heatmap_other task_truncated.png",
    ]
