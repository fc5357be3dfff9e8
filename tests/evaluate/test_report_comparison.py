"""Modes beside one another by length, with their costs, and published figures beside scores."""

from typing import get_args

import pytest

from evaluate.predictions import MODEL_MODE
from evaluate.published import PUBLISHED
from evaluate.report_comparison import comparison_section, length_name, published_section
from evaluate.scoring import METRICS, length_buckets, score_tasks
from pefts.eval_args import Published


def records(length: int, mode: str, right: int, timed: int, meta: dict | None = None) -> list[dict]:
    """Ten predictions of a mode at a length, of which some are right and some timed."""
    result = []
    for number in range(10):
        record = {
            "task": "qa",
            "id": f"{length}-{number}",
            "mode": mode,
            "prediction": "red" if number < right else "blue",
            "references": ["red"],
            "context_tokens": length,
            "context_positions": length // 10 if mode == MODEL_MODE else length,
            "decoder_positions": length + 20,
            "meta": {"length": length} if meta is None else meta,
        }
        if number < timed:
            timing = {"first_token_seconds": 0.5 + number, "seconds": 2.0 + number, "peak_bytes": 3_000_000 * number}
            record["timing"] = timing
        result.append(record)
    return result


@pytest.fixture
def predictions() -> list[dict]:
    parts = [(1024, MODEL_MODE, 7, 2), (1024, "full", 9, 1), (2048, MODEL_MODE, 5, 0), (2048, "full", 2, 0)]
    return [record for part in parts for record in records(*part)]


TASKS = [{"name": "qa", "metrics": ["exact_match"]}]


def rows_of(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_costs_are_means_over_timed_prompts(predictions):
    rows = rows_of(comparison_section(predictions, score_tasks(predictions, TASKS)))[2:]
    assert [row[:3] for row in rows] == [
        ["1,024", "model", "10"],
        ["1,024", "full", "10"],
        ["2,048", "model", "10"],
        ["2,048", "full", "10"],
    ]
    assert rows[0][3].startswith("70.0 [")
    assert rows[0][4:] == ["1,024", "102", "1,044", "1.00", "2.50", "3", "2"]
    assert rows[1][7:] == ["0.50", "2.00", "0", "1"]
    assert rows[2][7:] == ["–", "–", "–", "0"]


def test_without_costs_there_is_no_section(predictions):
    bare = [{k: v for k, v in record.items() if k != "decoder_positions"} for record in predictions]
    assert comparison_section(bare, score_tasks(bare, TASKS)) == ""


def test_lengths_are_those_the_data_were_made_to_or_powers_of_two():
    made = records(1000, "full", 1, 0)[:1]
    natural = records(1000, "full", 1, 0, meta={})[:1]
    in_chunks = records(1000, "full", 1, 0, meta={"length": 7, "unit": "chunks"})[:1]
    named = records(1000, "full", 1, 0, meta={"length": "short"})[:1]
    nothing = [{key: value for key, value in natural[0].items() if key != "context_tokens"}]
    buckets = length_buckets([*made, *natural, *in_chunks, *named, *nothing])
    assert buckets == [(1000, 1000), (512, 1023), (512, 1023), (512, 1023), None]
    assert [length_name(bucket) for bucket in buckets] == ["1,000", "512-1,023", "512-1,023", "512-1,023", None]


def ruler_records(task: str, length: int, right: int) -> list[dict]:
    meta = {"length": length, "ruler_task": task}
    return [
        {**record, "task": "t", "id": f"{task}-{record['id']}"}
        for record in records(length, MODEL_MODE, right, 0, meta)
    ]


def test_published_figures_stand_beside_the_model():
    predictions = [
        *ruler_records("niah_single_1", 8192, 8),
        *ruler_records("niah_single_2", 8192, 6),
        *ruler_records("vt", 4096, 3),
        *({**record, "task": "t"} for record in records(4096, MODEL_MODE, 10, 0, {"ruler_task": "vt"})),
    ]
    tasks = [{"name": "t", "metrics": ["ruler"], "published": "ruler"}]
    rows = rows_of(published_section(predictions, score_tasks(predictions, tasks), tasks))[2:]
    assert [row[1:5] for row in rows] == [
        ["string match, NIAH", "8,192", "60.66", "70.00 (2 of 8 tasks)"],
        ["string match, NIAH", "131,072", "48.38", "–"],
        ["string match, QA", "65,536", "34.50", "–"],
        ["string match, VT", "4,096", "7.20", "30.00"],
        ["string match, VT", "32,768", "8.60", "–"],
    ]
    assert published_section(predictions, score_tasks(predictions, tasks), [{"name": "t", "published": None}]) == ""


def test_a_score_that_is_not_by_length_has_its_interval():
    predictions = records(1000, MODEL_MODE, 10, 0)
    tasks = [{"name": "qa", "metrics": ["triviaqa_f1"], "published": "triviaqa"}]
    ((_, _, length, published, here, label),) = rows_of(
        published_section(predictions, score_tasks(predictions, tasks), tasks)
    )[2:]
    assert (length, published, here, label) == ("–", "38.57", "100.0 [100.0, 100.0]", "triviaqa_f1")
    tasks[0]["metrics"] = ["f1"]
    assert rows_of(published_section(predictions, score_tasks(predictions, tasks), tasks))[2][4] == "–"


def test_every_published_benchmark_can_be_named_and_every_name_has_figures():
    assert {figure.benchmark for figure in PUBLISHED} == set(get_args(Published))
    labels = {label for metric in METRICS.values() for label in metric.labels}
    for figure in PUBLISHED:
        assert figure.label in labels, figure
