"""The registry, groups, and buckets of context length."""

import pytest

from evaluate.scoring import METRICS, chunk_buckets, power_of_two_bucket, score_predictions, score_tasks
from utils.common_utils import UserError


def record(number: int, prediction: str, mode: str = "model", **changes) -> dict:
    base = {"task": "t", "id": str(number), "mode": mode, "prediction": prediction, "references": ["red"], "meta": {}}
    return {**base, **changes}


def test_every_registered_metric_scores_a_perfect_answer_100():
    meta = {"options": ["red wine bottle", "blue"], "gold": "A", "ruler_task": "vt"}
    text = "The correct answer is (A)"
    predictions = [record(i, text, references=[text], meta=meta) for i in range(2)]
    assert {"exact_match", "f1", "triviaqa_em", "triviaqa_f1", "rouge", "rouge_stemmed", "accuracy"} <= set(METRICS)
    for name, metric in METRICS.items():
        scores = score_predictions(predictions, [name])["overall"]["scores"]
        assert scores[metric.primary_label]["value"] == pytest.approx(100), name
        assert set(scores) == set(metric.labels)


def test_groups_and_overall():
    predictions = [
        record(0, "red", meta={"kind": "needle"}),
        record(1, "blue", meta={"kind": "needle"}),
        record(2, "red"),
        record(2, "blue", mode="closed_book"),
    ]
    result = score_predictions(predictions, ["f1", "exact_match"], group_by=("mode", "meta.kind"))
    assert result["overall"]["n"] == 4 and result["overall"]["scores"]["f1"]["value"] == 50.0
    assert [(g["group"], g["n"], g["scores"]["exact_match"]["value"]) for g in result["groups"]] == [
        ({"mode": "model", "meta.kind": "needle"}, 2, 50.0),
        ({"mode": "model", "meta.kind": None}, 1, 100.0),
        ({"mode": "closed_book", "meta.kind": None}, 1, 0.0),
    ]


@pytest.mark.parametrize("name", METRICS)
def test_no_prediction_gives_no_figure_and_no_division_by_zero(name):
    result = score_predictions([], [name], group_by=("mode",))
    assert result["groups"] == [] and result["overall"]["n"] == 0
    assert all(score["value"] is None and score["n"] == 0 for score in result["overall"]["scores"].values())


def test_a_prediction_without_reference_is_counted_but_not_scored():
    overall = score_predictions([record(0, "red"), record(1, "red", references=[])], ["f1", "rouge"])["overall"]
    assert overall["n"] == 2
    assert overall["scores"]["f1"]["n"] == overall["scores"]["rouge.geometric_mean"]["n"] == 1
    assert overall["scores"]["f1"]["value"] == 100.0


def test_unknown_metric():
    with pytest.raises(UserError, match="Did you mean 'exact_match'"):
        score_predictions([], ["exact_mach"])


def test_few_lengths_are_buckets_of_their_own_and_many_are_powers_of_two():
    few = [record(i, "red", num_chunks=n) for i, n in enumerate([5, 7, 5])]
    assert chunk_buckets(few) == [(5, 5), (7, 7), (5, 5)]
    many = [record(n, "red", num_chunks=n) for n in range(13)]
    assert chunk_buckets(many) == [(0, 0), (1, 1), *[(2, 3)] * 2, *[(4, 7)] * 4, *[(8, 15)] * 5]
    assert power_of_two_bucket(2**50 - 1) == (2**49, 2**50 - 1)


def test_a_closed_book_prediction_belongs_to_the_length_of_its_example():
    predictions = [
        record(0, "red", num_chunks=9),
        record(0, "red", mode="closed_book", num_chunks=0),
        record(1, "red"),
    ]
    assert chunk_buckets(predictions) == [(9, 9), (9, 9), None]


def test_score_tasks_has_each_view_that_the_data_allow():
    predictions = [
        record(i, "red" if i < 2 else "blue", num_chunks=2**i, meta={"kind": "ab"[i % 2]}) for i in range(4)
    ] + [record(0, "red", task="plain")]
    tasks = [{"name": n, "metrics": ["f1"]} for n in ("t", "plain", "none")]
    scores = score_tasks(predictions, tasks)
    assert [g["group"] for g in scores["t"]["by_kind"]] == [{"mode": "model", "kind": k} for k in "ab"]
    assert [(g["group"]["chunks"], g["scores"]["f1"]["value"]) for g in scores["t"]["by_chunks"]] == [
        ((1, 1), 100.0),
        ((2, 2), 100.0),
        ((4, 4), 0.0),
        ((8, 8), 0.0),
    ]
    assert len(scores["t"]["by_kind_chunks"]) == 4
    assert len(scores["plain"]["by_mode"]) == 1 and scores["plain"]["by_kind"] == scores["plain"]["by_chunks"] == []
    assert scores["none"]["by_mode"] == [] and scores["none"]["primary"] == "f1"
