"""Means, what does not apply, and bootstrap intervals against an independent computation."""

import numpy as np
import pytest

from evaluate import aggregate
from evaluate.aggregate import Metric, score_examples, summarise, summarise_groups
from utils.common_utils import UserError

NAN = float("nan")


def value_metric() -> Metric:
    return Metric("value", ("value", "some"), lambda record: {"value": record["v"], "some": record.get("s", NAN)})


def records(values, some=()) -> list[dict]:
    rows = [{"task": "t", "id": str(i), "v": v} for i, v in enumerate(values)]
    for row, s in zip(rows, some, strict=False):
        row["s"] = s
    return rows


def test_mean_and_interval_agree_with_a_plain_bootstrap():
    values = np.random.default_rng(1).random(60)
    score = summarise(score_examples(records(values), [value_metric()]), range(60))["scores"]["value"]
    assert score["value"] == pytest.approx(100 * values.mean())
    rng = np.random.default_rng(2)
    means = [rng.choice(values, 60).mean() for _ in range(4000)]
    assert score["low"] == pytest.approx(100 * np.percentile(means, 2.5), abs=1)
    assert score["high"] == pytest.approx(100 * np.percentile(means, 97.5), abs=1)


def test_interval_is_seeded_and_does_not_depend_on_other_groups_or_blocks(monkeypatch):
    table = score_examples(records(np.random.default_rng(1).random(30)), [value_metric()])
    alone = summarise(table, range(10), seed=3)
    groups = summarise_groups(table, ["a"] * 10 + ["b"] * 20, seed=3)
    assert groups["a"] == alone and groups["b"]["n"] == 20
    assert summarise(table, range(10), seed=4)["scores"]["value"]["low"] != alone["scores"]["value"]["low"]
    monkeypatch.setattr(aggregate, "_MAX_DRAWS_PER_BLOCK", 70)
    assert summarise(table, range(10), seed=3) == alone


def test_what_does_not_apply_is_left_out_of_mean_and_count():
    table = score_examples(records([1, 0, 1, 1], some=[1.0, NAN, 0.0, NAN]), [value_metric()])
    scores = summarise(table, range(4))["scores"]
    assert scores["value"]["n"] == 4 and scores["value"]["value"] == 75.0
    assert scores["value.some"]["n"] == 2 and scores["value.some"]["value"] == 50.0
    assert (scores["value.some"]["low"], scores["value.some"]["high"]) == (0.0, 100.0)


@pytest.mark.parametrize("rows, value", [([], None), ([0], 50.0)])
def test_no_interval_below_two_examples(rows, value):
    summary = summarise(score_examples(records([0.5, 1]), [value_metric()]), rows)
    assert summary["n"] == len(rows)
    assert summary["scores"]["value"] == {"value": value, "low": None, "high": None, "n": len(rows)}


def test_derived_value_is_of_the_means():
    metric = Metric(
        "m",
        ("x", "y"),
        lambda record: {"x": record["v"], "y": 1 - record["v"]},
        derived_keys=("product",),
        derive=lambda means: {"product": means["x"] * means["y"]},
    )
    scores = summarise(score_examples(records([0, 1] * 20), [metric]), range(40))["scores"]
    # Each example's own product is 0; the product of the means is 1/4, its largest value.
    assert scores["m.product"]["value"] == 25.0 == pytest.approx(scores["m.product"]["high"], abs=0.1)
    assert scores["m.product"]["low"] < 24.9


def test_an_error_names_task_and_id():
    def fail(record):
        raise UserError("needs options")

    with pytest.raises(UserError, match="task 't', id '0': needs options"):
        score_examples(records([1]), [Metric("m", ("m",), fail)])
