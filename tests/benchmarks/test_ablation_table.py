"""Figures of runs, means and spreads, and the table."""

import json
import math

import pytest

from benchmarks.ablation_table import LOSSES, ablation_text, collect_figures, summarise_runs


def group(value: float, n: int = 4, **fields) -> dict:
    return {"group": {"mode": "model"} | fields, "n": n, "scores": {"exact_match": {"value": value, "n": n}}}


@pytest.fixture
def run_dir(tmp_path):
    views = {
        "primary": "exact_match",
        "by_mode": [group(30.0), group(5.0, mode="closed_book")],
        "by_kind": [group(40.0, kind="one_fact"), group(20.0, kind="summary")],
        "by_chunks": [
            group(32.0, chunks=[1, 1]),
            group(28.0, chunks=[2, 3]),
            group(5.0, mode="closed_book", chunks=[1, 1]),
        ],
        "by_kind_chunks": [group(50.0, kind="one_fact", chunks=[1, 1]), group(10.0, kind="summary", chunks=[1, 1])],
        "by_length": [group(31.0, length=[16, 31]), group(None, length=[32, 63])],
    }
    (tmp_path / "eval").mkdir()
    reconstruction = {"loss_true": 0.5, "loss_shuffled": 3.25}
    document = {"scores": {"demo": views}, "reconstruction": reconstruction}
    (tmp_path / "eval/metrics.json").write_text(json.dumps(document))
    lines = [
        {"step": step, "split": split, "objective": objective, "loss": loss}
        for step, split, objective, loss in (
            (1, "train", "reasoning", 9.0),
            (1, "validation", "reasoning", 3.0),
            (2, "validation", "reasoning", 2.0),
            (2, "validation", "cued", 1.0),
        )
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def test_figures_of_a_run(run_dir):
    figures = collect_figures(run_dir, None)
    assert figures == {
        "demo: exact_match (%) by chunks of the context": {"all": 30.0, "1": 32.0, "2-3": 28.0},
        "demo: exact_match (%) by tokens of the context": {"16-31": 31.0, "32-63": None},
        LOSSES: {
            "validation, cued": 1.0,
            "validation, reasoning": 2.0,
            "restating": 0.5,
            "restating, shuffled": 3.25,
            "gap": 2.75,
        },
    }
    of_kind = collect_figures(run_dir, "one_fact")
    assert of_kind["demo: exact_match (%) by chunks of the context, one_fact"] == {"all": 40.0, "1": 50.0}


def test_mean_and_spread_over_seeds():
    runs = {
        "base": {0: {"t": {"a": 1.0, "b": 5.0}}, 1: {"t": {"a": 2.0, "b": None}}, 2: {"t": {"a": 6.0, "b": 7.0}}},
        "one": {0: {"t": {"a": 4.0}}},
        "none": {},
    }
    summary = summarise_runs(runs)
    base = summary["base"]["figures"]["t"]
    assert base["a"] == {"mean": 3.0, "sd": pytest.approx(math.sqrt((4 + 1 + 9) / 2)), "n": 3}
    assert base["b"] == {"mean": 6.0, "sd": pytest.approx(math.sqrt(2)), "n": 2}
    assert summary["one"]["figures"]["t"]["a"] == {"mean": 4.0, "sd": None, "n": 1}
    assert summary["none"] == {"seeds": [], "figures": {}}
    text = ablation_text(summary, {"base": "as it is", "one": "once", "none": "not yet"}, "python x")
    assert "| base    | as it is          | 0, 1, 2 |" in text
    assert "| none    | not yet           | –       |" in text
    assert "| base    | 3.0 ± 2.6 | 6.0 ± 1.4 (n=2) |" in text
    assert "| one     |       4.0 |               – |" in text


def test_columns_go_by_size():
    runs = {"base": {0: {"t": {"all": 1.0, "8": 1.0, "16-31": 1.0, "2": 1.0}, LOSSES: {"gap": 0.1234}}}}
    text = ablation_text(summarise_runs(runs), {"base": ""}, "python x")
    assert "| variant | all |   2 |   8 | 16-31 |" in text
    assert "0.123" in text
    assert text.index("## t") < text.index(f"## {LOSSES}")
