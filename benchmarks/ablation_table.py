"""The figures of runs, and the table of variants with mean and spread over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluate.plots import bucket_name
from evaluate.predictions import MODEL_MODE
from evaluate.tables import markdown_table
from evaluate.training_log import OBJECTIVES, read_training_curves
from utils.common_utils import read_json

LOSSES = "Losses (nats a token)"

Figures = dict[str, dict[str, float]]
"""Table -> column -> figure."""


def collect_figures(run_dir: Path, kind: str | None) -> Figures:
    """Return the figures of a run that was trained into `run_dir` and evaluated into its folder `eval`.

    Args:
        kind: count only the examples of this kind (`meta.kind`) by number of chunks; None: all.
    """
    metrics = read_json(run_dir / "eval/metrics.json")
    figures: Figures = {}
    for task, views in metrics["scores"].items():
        label = views["primary"]
        of_kind = "" if kind is None else f", {kind}"
        overall = views["by_mode"] if kind is None else _of_kind(views["by_kind"], kind)
        by_chunks = views["by_chunks"] if kind is None else _of_kind(views["by_kind_chunks"], kind)
        figures[f"{task}: {label} (%) by chunks of the context{of_kind}"] = {
            "all": _score(overall, label)
        } | _by_bucket(by_chunks, "chunks", label)
        figures[f"{task}: {label} (%) by tokens of the context"] = _by_bucket(views["by_length"], "length", label)
    figures[LOSSES] = _validation_losses(run_dir) | _reconstruction_losses(metrics["reconstruction"])
    return {table: columns for table, columns in figures.items() if columns}


def _of_kind(groups: Sequence[Mapping], kind: str) -> list[Mapping]:
    return [group for group in groups if group["group"]["kind"] == kind]


def _score(groups: Sequence[Mapping], label: str) -> float | None:
    values = [g["scores"][label]["value"] for g in groups if g["group"]["mode"] == MODEL_MODE]
    return values[0] if values else None


def _by_bucket(groups: Sequence[Mapping], field: str, label: str) -> dict[str, float]:
    known = [group for group in groups if group["group"][field] is not None]
    buckets = dict.fromkeys(tuple(group["group"][field]) for group in known)
    return {
        bucket_name(bucket): _score([group for group in known if tuple(group["group"][field]) == bucket], label)
        for bucket in sorted(buckets)
    }


def _validation_losses(run_dir: Path) -> dict[str, float]:
    curves = read_training_curves(run_dir / "metrics.jsonl")
    return {
        f"validation, {objective}": list(curve.points.values())[-1]
        for objective in OBJECTIVES
        if (curve := curves.get(("validation", objective))) and curve.points
    }


def _reconstruction_losses(reconstruction: Mapping | None) -> dict[str, float]:
    if not reconstruction:
        return {}
    loss, shuffled = reconstruction["loss_true"], reconstruction["loss_shuffled"]
    return {"restating": loss, "restating, shuffled": shuffled, "gap": shuffled - loss}


def summarise_runs(runs: Mapping[str, Mapping[int, Figures]]) -> dict[str, dict]:
    """Average over seeds.

    Args:
        runs: variant -> seed -> figures of the run.

    Returns:
        variant -> `{"seeds": [...], "figures": {table: {column: {"mean", "sd", "n"}}}}`; `sd` is the sample's standard
        deviation, None of a single run.
    """
    summary = {}
    for variant, by_seed in runs.items():
        values: dict[tuple[str, str], list[float]] = {}
        for figures in by_seed.values():
            for table, columns in figures.items():
                for column, value in columns.items():
                    if value is not None:
                        values.setdefault((table, column), []).append(value)
        tables: dict[str, dict] = {}
        for (table, column), of_column in values.items():
            spread = statistics.stdev(of_column) if len(of_column) > 1 else None
            cell = {"mean": statistics.fmean(of_column), "sd": spread, "n": len(of_column)}
            tables.setdefault(table, {})[column] = cell
        summary[variant] = {"seeds": sorted(by_seed), "figures": tables}
    return summary


def ablation_text(summary: Mapping[str, Mapping], descriptions: Mapping[str, str], command: str) -> str:
    """Write the tables as Markdown: a row a variant, mean ± standard deviation over its seeds."""
    parts = [
        f"# Ablations\n\nMade by `{command}`. Mean ± standard deviation over the seeds named; a variant's number of"
    ]
    parts[0] += " chunks counts its own chunks, so that variants of chunk size compare by tokens.\n"
    rows = [[name, descriptions[name], ", ".join(map(str, entry["seeds"])) or None] for name, entry in summary.items()]
    parts.append(markdown_table(["variant", "what is different", "seeds"], rows))
    tables = dict.fromkeys(table for entry in summary.values() for table in entry["figures"])
    for table in sorted(tables, key=lambda name: name == LOSSES):
        of_table = {name: entry["figures"].get(table, {}) for name, entry in summary.items()}
        columns = list(dict.fromkeys(column for cells in of_table.values() for column in cells))
        columns.sort(key=_column_order)
        digits = 3 if table == LOSSES else 1
        rows = [
            [name, *(_cell_text(cells.get(column), len(summary[name]["seeds"]), digits) for column in columns)]
            for name, cells in of_table.items()
        ]
        table_text = markdown_table(["variant", *columns], rows, right=range(1, len(columns) + 1))
        parts.append(f"## {table}\n\n{table_text}")
    return "\n".join(parts)


def _column_order(column: str) -> tuple:
    """Numbers of chunks and tokens by size, behind `all`; names keep their order."""
    first = column.split("-")[0]
    return (1, int(first)) if first.isdigit() else (0, 0)


def _cell_text(cell: Mapping | None, num_seeds: int, digits: int) -> str | None:
    if cell is None:
        return None
    text = f"{cell['mean']:.{digits}f}"
    if cell["sd"] is not None:
        text += f" ± {cell['sd']:.{digits}f}"
    return text if cell["n"] == num_seeds else f"{text} (n={cell['n']})"
