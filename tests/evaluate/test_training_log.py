"""Curves out of a training log with repeats, gaps and lines about other things."""

import json

import pytest

from evaluate.training_log import read_training_curves
from utils.common_utils import UserError


def line(step, loss, split="train", objective="reasoning", **more) -> str:
    return json.dumps({"step": step, "split": split, "objective": objective, "loss": loss, **more}) + "\n"


def test_curves_per_split_and_objective(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        line(20, 2.0)
        + line(10, 3.0)
        + line(20, 1.5)  # logged again by a resumed run
        + line(30, float("nan"))
        + line(20, 2.5, "validation", "understanding", shuffled_loss=3.5)
        + json.dumps({"step": 20, "tokens_per_second": 900})
        + "\n"
        + line(20, 9.0, split="test")
    )
    curves = read_training_curves(path)
    assert set(curves) == {("train", "reasoning"), ("validation", "understanding")}
    assert list(curves["train", "reasoning"].points.items()) == [(10, 3.0), (20, 1.5)]
    assert curves["validation", "understanding"].shuffled_points == {20: 3.5}


def test_a_torn_line_is_a_user_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(line(1, 2.0) + '{"step": ')
    with pytest.raises(UserError, match="metrics.jsonl:2"):
        read_training_curves(tmp_path / "metrics.jsonl")
