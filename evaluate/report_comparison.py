"""The sections of `report.md` that set modes beside one another, and scores beside published ones."""

from collections.abc import Mapping, Sequence

from evaluate.predictions import MODEL_MODE, group_order
from evaluate.published import PUBLISHED, SOURCE, PublishedFigure
from evaluate.ruler_table import GROUPS, has_place, ruler_table
from evaluate.scoring import length_buckets
from evaluate.tables import markdown_table, score_text


def comparison_section(predictions: Sequence[Mapping], scores: Mapping[str, Mapping]) -> str:
    """What each mode gets right and what it costs, by length of the context: score, decoder positions, time, memory.

    Times and memory are those of prompts answered alone (`timing` in a record); "n timed" counts them.
    """
    parts = []
    for task, views in scores.items():
        of_task = [record for record in predictions if record["task"] == task]
        if not any("decoder_positions" in record for record in of_task):
            continue
        by_group: dict[tuple, list[Mapping]] = {}
        for record, length in zip(of_task, length_buckets(of_task), strict=True):
            by_group.setdefault((length, record["mode"]), []).append(record)
        label = views["primary"]
        scored = {(_hashable(g["group"]["length"]), g["group"]["mode"]): g["scores"][label] for g in views["by_length"]}
        rows = []
        for group in sorted(by_group, key=group_order):
            records = by_group[group]
            score = score_text(scored[group]) if group in scored else None
            means = [_mean(records, key) for key in ("context_tokens", "context_positions", "decoder_positions")]
            rows.append([length_name(group[0]), group[1], len(records), score, *means, *_costs(records)])
        header = ["context tokens", "mode", "n", f"{label} (%)", "context tokens, mean", "positions for the context"]
        header += ["decoder positions", "first token (s)", "total (s)", "peak memory (MB)", "n timed"]
        parts.append(f"### {task}\n\n" + markdown_table(header, rows, right=range(2, len(header))))
    if not parts:
        return ""
    return (
        "## Modes by length: scores and costs\n\n"
        + "\n".join(parts)
        + "\n*Positions for the context* are the decoder positions that stand for the context: chunk tokens in the mode"
        " `model`, context tokens in the others; *decoder positions* include the prompt. Times are means over prompts"
        " answered alone, from reading the context to the first token and to the end of the answer; *peak memory* is"
        " the most that such a prompt took beside the loaded models. Modes: docs/baselines.md.\n"
    )


def length_name(bucket: Sequence[int] | None) -> str | None:
    """Write a bucket of token counts: `4,096`, or `4,096-8,191` for a range."""
    if bucket is None:
        return None
    low, high = bucket
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _costs(records: Sequence[Mapping]) -> list[str | int | None]:
    timings = [record["timing"] for record in records if "timing" in record]
    if not timings:
        return [None, None, None, 0]
    seconds = [
        f"{sum(timing[key] for timing in timings) / len(timings):.2f}" for key in ("first_token_seconds", "seconds")
    ]
    peaks = [timing["peak_bytes"] for timing in timings if timing.get("peak_bytes") is not None]
    return [*seconds, f"{max(peaks) / 1e6:,.0f}" if peaks else None, len(timings)]


def _mean(records: Sequence[Mapping], key: str) -> str | None:
    values = [record[key] for record in records if key in record]
    return f"{sum(values) / len(values):,.0f}" if values else None


def published_section(predictions: Sequence[Mapping], scores: Mapping[str, Mapping], tasks: Sequence[Mapping]) -> str:
    """The published figures of the tasks' benchmarks beside the model's scores."""
    rows = []
    for task in tasks:
        of_model = [r for r in predictions if (r["task"], r["mode"]) == (task["name"], MODEL_MODE)]
        for figure in PUBLISHED:
            if figure.benchmark == task.get("published"):
                if figure.ruler_group:
                    measured = _ruler_score(of_model, figure)
                else:
                    measured = _model_score(scores[task["name"]], figure.label)
                length = None if figure.length is None else f"{figure.length:,}"
                rows.append([task["name"], figure.score, length, f"{figure.value:.2f}", measured, figure.label])
    if not rows:
        return ""
    header = ["task", "published score", "tokens", f"{SOURCE} (%)", "here (%)", "metric here"]
    return (
        "## Published figures\n\n" + markdown_table(header, rows, right=(2, 3, 4)) + "\nPublished with GTE-large-en and"
        " Llama-2-7B-chat, trained on the data set's own training data; a dash stands where nothing here was measured"
        " by that metric at that length.\n"
    )


def _model_score(views: Mapping, label: str) -> str | None:
    for group in views["by_mode"]:
        if group["group"]["mode"] == MODEL_MODE and label in group["scores"]:
            return score_text(group["scores"][label])
    return None


def _ruler_score(predictions: Sequence[Mapping], figure: PublishedFigure) -> str | None:
    placed = [record for record in predictions if has_place(record)]
    score = ruler_table(placed).groups.get((figure.ruler_group, figure.length))
    if score is None:
        return None
    num_tasks = len(GROUPS[figure.ruler_group])
    return f"{score.value:.2f}" + ("" if score.num_tasks == num_tasks else f" ({score.num_tasks} of {num_tasks} tasks)")


def _hashable(bucket: Sequence[int] | None) -> tuple[int, ...] | None:
    """Return a bucket read back from JSON, a list, as the tuple that it was."""
    return None if bucket is None else tuple(bucket)
