"""The sections of `report.md`: each function returns the Markdown of one, or an empty text where it has no data."""

import json
from collections.abc import Iterable, Mapping, Sequence

from evaluate.plots import bucket_name
from evaluate.predictions import MODEL_MODE, field_value, group_order
from evaluate.scoring import METRICS, chunk_buckets
from evaluate.tables import markdown_table, one_line, score_text
from evaluate.training_log import OBJECTIVES, Curve

SAMPLES_PER_KIND = 3
_SHORT_TEXT = 320


def run_section(run_info: Mapping[str, object]) -> str:
    """What was evaluated: the caller's key-value pairs."""
    if not run_info:
        return ""
    rows = [[key, value if isinstance(value, str) else json.dumps(value)] for key, value in run_info.items()]
    return "## Run\n\n" + markdown_table(["key", "value"], rows)


def summary_section(scores: Mapping[str, Mapping]) -> str:
    """Every score of every task and mode, with its interval and the number of examples it was measured on."""
    rows = []
    for task, views in scores.items():
        if not views["by_mode"]:
            rows.append([task, None, None, None, None, 0])
        for group in views["by_mode"]:
            for label, score in group["scores"].items():
                interval = None if score["low"] is None else f"[{score['low']:.1f}, {score['high']:.1f}]"
                value = None if score["value"] is None else f"{score['value']:.1f}"
                rows.append([task, group["group"]["mode"], label, value, interval, score["n"]])
    table = markdown_table(["task", "mode", "metric", "score (%)", "95 % interval", "n"], rows, right=(3, 4, 5))
    return (
        "## Summary\n\n" + table + "\nScores are percentages; intervals are bootstrap intervals over examples (1,000"
        " resamples); n counts the examples that a score applies to. Definitions: docs/metrics.md.\n"
    )


def kinds_section(scores: Mapping[str, Mapping]) -> str:
    """The primary score of each metric by kind, one column a mode, for tasks whose examples have kinds."""
    parts = []
    for task, views in scores.items():
        for name in views["metrics"] if views["by_kind"] else ():
            label = METRICS[name].primary_label
            parts.append(f"### {task}: {label} (%)\n\n" + _mode_table(views["by_kind"], label, ("kind",)))
    return "## Scores by kind\n\n" + "\n".join(parts) if parts else ""


def chunks_section(task: str, views: Mapping, plot: str | None) -> str:
    """The primary score by the number of chunks, one column a mode, with the plot; then the same for each kind."""
    if not views["by_chunks"]:
        return ""
    label = views["primary"]
    text = f"### {task}: {label} (%)\n\n" + _mode_table(views["by_chunks"], label, ("chunks",))
    if plot is not None:
        text += f"\n![{label} of {task} by the number of chunks]({plot})\n"
    if len({group["group"]["kind"] for group in views["by_kind_chunks"]}) > 1:
        text += "\n" + _mode_table(views["by_kind_chunks"], label, ("kind", "chunks"))
    return text


def _mode_table(groups: Sequence[Mapping], label: str, fields: Sequence[str]) -> str:
    """Lay out groups with a row per value of `fields` and, per mode, the score and the examples it was measured on."""
    modes = list(dict.fromkeys(group["group"]["mode"] for group in groups))
    rows: dict[tuple, dict[str, Mapping]] = {}
    for group in groups:
        values = tuple(_hashable(group["group"][field]) for field in fields)
        rows.setdefault(values, {})[group["group"]["mode"]] = group["scores"][label]
    nothing = {"value": None, "n": 0}
    cells = []
    for values in sorted(rows, key=group_order):
        of_mode = [rows[values].get(mode, nothing) for mode in modes]
        names = [bucket_name(value) if isinstance(value, tuple) else value for value in values]
        cells.append([*names, *(cell for score in of_mode for cell in (score_text(score), score["n"]))])
    header = [*fields, *(name for mode in modes for name in (mode, "n"))]
    return markdown_table(header, cells, right=range(len(fields), len(header)))


def _hashable(value: object) -> object:
    """Return a bucket read back from JSON, a list, as the tuple that it was."""
    return tuple(value) if isinstance(value, list) else value


def reconstruction_section(reconstruction: Mapping | None) -> str:
    """How well the decoder restates text from its chunk tokens, beside the same under another text's chunk tokens."""
    if not reconstruction:
        return ""
    rows = [_reconstruction_row("all", reconstruction)]
    rows += [_reconstruction_row(part.get("window"), part) for part in reconstruction.get("by_window", ())]
    table = markdown_table(
        ["window (chunks)", "loss", "loss, shuffled", "gap", "token accuracy (%)", "tokens"], rows, right=range(6)
    )
    return (
        "## Reconstruction\n\n" + table + "\nLosses in nats a token. *Shuffled* is the loss on the same text under the"
        " chunk tokens of another; a gap near 0 means that the decoder does not read its chunk tokens.\n"
    )


def _reconstruction_row(name: object, values: Mapping) -> list[object]:
    true, shuffled, accuracy = (values.get(key) for key in ("loss_true", "loss_shuffled", "token_accuracy"))
    gap = None if true is None or shuffled is None else f"{shuffled - true:+.3f}"
    numbers = [None if loss is None else f"{loss:.3f}" for loss in (true, shuffled)]
    return [name, *numbers, gap, None if accuracy is None else f"{100 * accuracy:.1f}", values.get("num_tokens")]


def compression_section(predictions: Sequence[Mapping]) -> str:
    """Decoder tokens the context would take for each chunk token, the mean over the model's examples."""
    rows = []
    for task in dict.fromkeys(record["task"] for record in predictions):
        of_task = [record for record in predictions if record["task"] == task]
        groups: dict[object, list[Mapping]] = {}
        for record, bucket in zip(of_task, chunk_buckets(of_task), strict=True):
            if record["mode"] == MODEL_MODE and record.get("num_chunk_tokens") and "context_tokens" in record:
                groups.setdefault("all", []).append(record)
                groups.setdefault(bucket, []).append(record)
        for bucket in sorted(groups, key=lambda bucket: (bucket != "all", bucket or ())):
            records = groups[bucket]
            name = bucket_name(bucket) if isinstance(bucket, tuple) else bucket
            means = [_mean(record[key] for record in records) for key in ("context_tokens", "num_chunk_tokens")]
            ratio = _mean(record["context_tokens"] / record["num_chunk_tokens"] for record in records)
            rows.append([task, name, len(records), *(f"{mean:,.1f}" for mean in means), f"{ratio:.1f}"])
    if not rows:
        return ""
    header = ["task", "chunks", "n", "context tokens", "chunk tokens", "context tokens per chunk token"]
    return (
        "## Compression\n\n" + markdown_table(header, rows, right=range(2, 6)) + "\nMeans over examples. *Context"
        " tokens* are the decoder tokens that the context would take without compression.\n"
    )


def training_section(curves: Mapping[tuple[str, str], Curve], plot: str) -> str:
    """The losses per objective and split: first, last, lowest, and the last one under shuffled chunk tokens."""
    rows = []
    for objective in OBJECTIVES:
        for split in ("train", "validation"):
            curve = curves.get((split, objective))
            if curve is None:
                continue
            losses = list(curve.points.values())
            best = min(curve.points, key=curve.points.__getitem__, default=None)
            shuffled, gaps = (list(points.values()) for points in (curve.shuffled_points, curve.gap_points))
            ends = [f"{values[index]:.3f}" if values else None for values, index in ((losses, 0), (losses, -1))]
            lowest = None if best is None else f"{curve.points[best]:.3f} (step {best})"
            exchanged = [f"{shuffled[-1]:.3f}" if shuffled else None, f"{gaps[-1]:+.3f}" if gaps else None]
            rows.append([objective, split, *ends, lowest, *exchanged])
    header = ["objective", "split", "first loss", "last loss", "lowest loss", "last loss, shuffled", "gap"]
    table = markdown_table(header, rows, right=range(2, 7))
    return (
        f"## Training\n\n{table}\nLosses in nats a token. *Shuffled* is under the chunk tokens of other contexts, in"
        " training of a single step; the *gap* is to the loss of the same batches under their own.\n\n"
        f"![training and validation loss by step]({plot})\n"
    )


def generation_section(predictions: Sequence[Mapping]) -> str:
    """Counts of empty and cut predictions and their mean length, per task and mode."""
    groups: dict[tuple[str, str], list[Mapping]] = {}
    for record in predictions:
        groups.setdefault((record["task"], record["mode"]), []).append(record)
    rows = []
    for (task, mode), records in groups.items():
        known = [record["truncated"] for record in records if "truncated" in record]
        empty = sum(not record["prediction"].strip() for record in records)
        unscored = sum(not record["references"] for record in records)
        words = _mean(len(record["prediction"].split()) for record in records)
        trimmed = sum("trimmed_chunk_tokens" in record for record in records)
        scaled = sum("rope_factor" in record for record in records)
        cut = sum(known) if known else None
        rows.append([task, mode, len(records), empty, cut, unscored, trimmed, scaled, f"{words:.1f}"])
    header = ["task", "mode", "n", "empty", "cut at max_new_tokens", "without reference"]
    header += ["context trimmed", "RoPE scaled", "mean words"]
    return "## Generation\n\n" + markdown_table(header, rows, right=range(2, 9)) if rows else ""


def samples_section(predictions: Sequence[Mapping]) -> str:
    """The first examples of every task and kind: reference beside the predictions of all modes."""
    examples: dict[tuple[str, str], list[Mapping]] = {}
    for record in predictions:
        examples.setdefault((record["task"], record["id"]), []).append(record)
    by_kind: dict[tuple[str, object], list[list[Mapping]]] = {}
    for (task, _), records in examples.items():
        by_kind.setdefault((task, field_value(records[0], "meta.kind")), []).append(records)
    parts = []
    for (task, kind), samples in by_kind.items():
        parts.append(f"### {task}" + ("" if kind is None else f": {kind}") + "\n")
        parts += [_sample(records) for records in samples[:SAMPLES_PER_KIND]]
    return "## Sample predictions\n\n" + "\n".join(parts) if parts else ""


def _sample(records: Sequence[Mapping]) -> str:
    """Write one example as an indented-by-name block; every text is on one line, so that none can end the block."""
    first = records[0]
    chunks = max((record["num_chunks"] for record in records if "num_chunks" in record), default=None)
    lines = [
        ("id", first["id"] + ("" if chunks is None else f"   ({chunks} chunks)")),
        ("prompt", first.get("prompt", "")),
    ]
    lines += [("reference", reference) for reference in first["references"][:2]]
    if len(first["references"]) > 2:
        lines.append(("", f"(and {len(first['references']) - 2} more references)"))
    lines += [(record["mode"], record["prediction"] or "(empty)") for record in records]
    width = max(len(name) for name, _ in lines)
    return "```text\n" + "".join(f"{name:<{width}}  {shorten(text)}\n" for name, text in lines) + "```\n"


def shorten(text: str, limit: int = _SHORT_TEXT) -> str:
    """Return the text on one line and, beyond `limit` characters, its beginning and end around an ellipsis."""
    text = one_line(text)
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]} [... {len(text) - limit:,} characters ...] {text[-tail:]}"


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
