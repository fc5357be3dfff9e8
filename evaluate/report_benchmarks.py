"""The sections of `report.md` in the form that benchmarks are shown in: needle heatmaps, and RULER's table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluate import niah_metric, ruler_table
from evaluate.niah_metric import NEEDLE, depth_grid, grid_table, length_unit
from evaluate.plots import plot_needle_heatmap
from evaluate.predictions import group_order
from evaluate.ruler_metric import RULER
from evaluate.tables import one_line


def needle_section(output_dir: Path, predictions: Sequence[Mapping], scores: Mapping[str, Mapping]) -> str:
    """A table and a heatmap length x depth for each mode of the tasks scored by `needle`; draws into `plots/`."""
    parts = []
    for number, (task, views) in enumerate(scores.items(), start=1):
        if NEEDLE.name not in views["metrics"]:
            continue
        for mode, records in _by_mode(predictions, task):
            placed = _of_one_unit([record for record in records if niah_metric.has_place(record)])
            text = ""
            if placed:
                grid = depth_grid(placed)
                plot = f"plots/needle_{number:02d}_{mode}.png"
                title = f"{one_line(task)}, {mode}: needle found (%)"
                plot_needle_heatmap(output_dir / plot, grid.lengths, grid.depths, grid.values, title, grid.unit)
                text = f"{grid_table(grid)}\n![{title}]({plot})\n"
            note = _left_out(len(records) - len(placed), "meta.length and meta.depth")
            parts.append(f"### {one_line(task)}: {mode}\n\n{text}{note}")
    return "## Needle by length and depth (%)\n\n" + "\n".join(parts) if parts else ""


def ruler_section(predictions: Sequence[Mapping], scores: Mapping[str, Mapping]) -> str:
    """RULER's table, a row a task and a column a length, for each mode of the tasks scored by `ruler`."""
    parts = []
    for task, views in scores.items():
        if RULER.name not in views["metrics"]:
            continue
        for mode, records in _by_mode(predictions, task):
            placed = [record for record in records if ruler_table.has_place(record)]
            text = ruler_table.format_ruler_table(ruler_table.ruler_table(placed)) if placed else ""
            note = _left_out(len(records) - len(placed), "meta.ruler_task and meta.length")
            parts.append(f"### {one_line(task)}: {mode}\n\n{text}{note}")
    return "## RULER by task and length (%)\n\n" + "\n".join(parts) if parts else ""


def _of_one_unit(records: Sequence[Mapping]) -> list[Mapping]:
    """Return the records with the commonest unit of length, since lengths in several do not go into one table."""
    if not records:
        return []
    ((unit, _),) = Counter(map(length_unit, records)).most_common(1)
    return [record for record in records if length_unit(record) == unit]


def _left_out(count: int, fields: str) -> str:
    return f"\nLeft out, because {fields} do not give them a place in the table: {count}.\n" if count else ""


def _by_mode(predictions: Sequence[Mapping], task: str) -> list[tuple[str, list[Mapping]]]:
    by_mode: dict[tuple[str], list[Mapping]] = {}
    for record in predictions:
        if record["task"] == task:
            by_mode.setdefault((record["mode"],), []).append(record)
    return [(mode[0], by_mode[mode]) for mode in sorted(by_mode, key=group_order)]
