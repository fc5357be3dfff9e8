"""The registry of metrics by name, scores over predictions and their groups, and the content of `metrics.json`."""

from collections.abc import Iterable, Mapping, Sequence

from evaluate.aggregate import Metric, ScoreTable, score_examples, summarise, summarise_groups
from evaluate.command_line import choose_metrics
from evaluate.em_quality import ACCURACY, EXACT_MATCH, SUBSTRING_EM
from evaluate.f1_qa import CEPE_F1, F1, FIRST_LINE_F1, TRIVIAQA_EM, TRIVIAQA_F1
from evaluate.longbench_v2 import LONGBENCH_V2
from evaluate.niah_metric import NEEDLE
from evaluate.predictions import field_value, group_order
from evaluate.rouge_longbench import LONGBENCH_ROUGE_L
from evaluate.rouge_sum import ROUGE, ROUGE_STEMMED
from evaluate.ruler_metric import RULER, STRING_MATCH_ALL, STRING_MATCH_PART

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        EXACT_MATCH,
        F1,
        TRIVIAQA_EM,
        TRIVIAQA_F1,
        ROUGE,
        ROUGE_STEMMED,
        ACCURACY,
        SUBSTRING_EM,
        FIRST_LINE_F1,
        CEPE_F1,
        LONGBENCH_ROUGE_L,
        LONGBENCH_V2,
        STRING_MATCH_ALL,
        STRING_MATCH_PART,
        RULER,
        NEEDLE,
    )
}
"""Every metric a task may name. A further metric is a module with its `Metric` and an entry here."""

MAX_EXACT_BUCKETS = 12
"""Up to this many distinct values each is a bucket of its own; beyond, buckets are powers of two."""


def score_predictions(
    predictions: Sequence[dict], metrics: Sequence[str], group_by: Sequence[str] = (), seed: int = 0
) -> dict:
    """Score predictions by named metrics, over all of them and per group.

    Args:
        group_by: fields of the record, dotted for nested ones (`("mode", "meta.kind")`); a group is one combination of
            their values, None where a record lacks the field.

    Returns:
        `{"overall": {"n", "scores"}, "groups": [{"group": {field: value}, "n", "scores"}, ...]}`; `scores` as in
        `evaluate.aggregate.summarise`. No prediction at all gives n = 0 and None for every score.

    Raises:
        UserError: an unknown metric, a metric that does not fit a record, or a field that holds a list or an object.
    """
    table = score_examples(predictions, choose_metrics(metrics, METRICS))
    values = [tuple(field_value(record, field) for field in group_by) for record in predictions]
    groups = _grouped(table, group_by, values, seed) if group_by else []
    return {"overall": summarise(table, range(len(predictions)), seed), "groups": groups}


def score_tasks(predictions: Sequence[dict], tasks: Sequence[Mapping], seed: int = 0) -> dict[str, dict]:
    """Score each task by its metrics in every view that the report shows.

    Args:
        tasks: `{"name": str, "metrics": [str, ...]}` each.

    Returns:
        task -> `{"metrics": [names], "primary": label of the first metric, "by_mode": [...], "by_kind": [...],
        "by_chunks": [...], "by_kind_chunks": [...], "by_length": [...]}`, lists of groups as in `score_predictions`. A
        group has "mode" and, where the view says so, "kind" (`meta.kind`), "chunks", the (smallest, largest) number of
        chunks of its bucket, and "length", the tokens of the context as `length_buckets` has them. A view is empty
        where no record has what it goes by.
    """
    return {
        task["name"]: _score_task([p for p in predictions if p["task"] == task["name"]], task["metrics"], seed)
        for task in tasks
    }


def _score_task(predictions: Sequence[dict], metric_names: Sequence[str], seed: int) -> dict:
    # Several processes write in no fixed order, and intervals are drawn by place.
    predictions = sorted(predictions, key=lambda record: (record["mode"], record["id"]))
    metrics = choose_metrics(metric_names, METRICS)
    table = score_examples(predictions, metrics)
    modes = [record["mode"] for record in predictions]
    kinds = [field_value(record, "meta.kind") for record in predictions]
    chunks = chunk_buckets(predictions)
    columns = {"mode": modes, "kind": kinds, "chunks": chunks, "length": length_buckets(predictions)}
    views = {}
    views_by = (("mode",), ("mode", "kind"), ("mode", "chunks"), ("mode", "kind", "chunks"), ("mode", "length"))
    for names in views_by:
        # A field that no record has would only repeat the view without it.
        known = all(any(value is not None for value in columns[name]) for name in names)
        values = zip(*(columns[name] for name in names), strict=True)
        views["by_" + "_".join(names[1:] or names)] = _grouped(table, names, values, seed) if known else []
    return {"metrics": list(metric_names), "primary": metrics[0].primary_label, **views}


def _grouped(table: ScoreTable, names: Sequence[str], values: Iterable[tuple], seed: int) -> list[dict]:
    """Summarise per combination of `values`, one tuple per prediction, in the order of `group_order`."""
    summaries = summarise_groups(table, list(values), seed)
    return [
        {"group": dict(zip(names, group, strict=True)), **summaries[group]}
        for group in sorted(summaries, key=group_order)
    ]


def chunk_buckets(predictions: Sequence[dict]) -> list[tuple[int, int] | None]:
    """Return for each prediction the bucket (smallest, largest number of chunks) of its example, None if unknown.

    The number is that of the example, the largest over its modes: a closed-book prediction reads no chunk, and still
    belongs beside the model's prediction of the same example. Zero chunks are always a bucket of their own.
    """
    chunks_by_example: dict[tuple[str, str], int] = {}
    for record in predictions:
        if "num_chunks" in record:
            key = (record["task"], record["id"])
            chunks_by_example[key] = max(record["num_chunks"], chunks_by_example.get(key, 0))
    exact = len(set(chunks_by_example.values())) <= MAX_EXACT_BUCKETS
    buckets = {key: (n, n) if exact else power_of_two_bucket(n) for key, n in chunks_by_example.items()}
    return [buckets.get((record["task"], record["id"])) for record in predictions]


def length_buckets(predictions: Sequence[dict]) -> list[tuple[int, int] | None]:
    """Return for each prediction the bucket (smallest, largest number of decoder tokens) of its context.

    Data made to a length (`meta.length`, in tokens) has that length for a bucket; else lengths go by powers of two.
    """
    buckets = []
    for record in predictions:
        made_to = record.get("meta", {}).get("length")
        in_tokens = record.get("meta", {}).get("unit", "tokens") == "tokens"
        if isinstance(made_to, int) and not isinstance(made_to, bool) and in_tokens:
            buckets.append((made_to, made_to))
        else:
            tokens = record.get("context_tokens")
            buckets.append(None if tokens is None else power_of_two_bucket(tokens))
    return buckets


def power_of_two_bucket(number: int) -> tuple[int, int]:
    """Return the smallest and the largest whole number of the bucket [2^k, 2^(k+1)) of `number`; (0, 0) for 0."""
    if number == 0:
        return 0, 0
    low = 1 << (number.bit_length() - 1)
    return low, 2 * low - 1
