"""The sections of `report.md` in the form that benchmarks are shown in: needle heatmaps, and RULER's table."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluate.niah_metric import NEEDLE, depth_grid, grid_table
from evaluate.plots import plot_needle_heatmap
from evaluate.predictions import field_value, group_order
from evaluate.ruler_metric import RULER
from evaluate.ruler_table import format_ruler_table, ruler_table
from evaluate.tables import one_line


def needle_section(output_dir: Path, predictions: Sequence[Mapping], scores: Mapping[str, Mapping]) -> str:
    """A table and a heatmap length x depth for each mode of the tasks scored by `needle`; draws into `plots/`."""
    parts = []
    for number, (task, views) in enumerate(scores.items(), start=1):
        if NEEDLE.name not in views["metrics"]:
            continue
        for mode, records in _by_mode(predictions, task):
            placed = [record for record in records if _is_placed(record)]
            if not placed:
                continue
            grid = depth_grid(placed)
            plot = f"plots/needle_{number:02d}_{mode}.png"
            title = f"{one_line(task)}, {mode}: needle found (%)"
            plot_needle_heatmap(output_dir / plot, grid.lengths, grid.depths, grid.values, title, grid.unit)
            parts.append(f"### {one_line(task)}: {mode}\n\n{grid_table(grid)}\n![{title}]({plot})\n")
    return "## Needle by length and depth (%)\n\n" + "\n".join(parts) if parts else ""


def ruler_section(predictions: Sequence[Mapping], scores: Mapping[str, Mapping]) -> str:
    """RULER's table, a row a task and a column a length, for each mode of the tasks scored by `ruler`."""
    parts = []
    for task, views in scores.items():
        if RULER.name in views["metrics"]:
            parts += [
                f"### {one_line(task)}: {mode}\n\n{format_ruler_table(ruler_table(records))}"
                for mode, records in _by_mode(predictions, task)
            ]
    return "## RULER by task and length (%)\n\n" + "\n".join(parts) if parts else ""


def _by_mode(predictions: Sequence[Mapping], task: str) -> list[tuple[str, list[Mapping]]]:
    by_mode: dict[tuple[str], list[Mapping]] = {}
    for record in predictions:
        if record["task"] == task:
            by_mode.setdefault((record["mode"],), []).append(record)
    return [(mode[0], by_mode[mode]) for mode in sorted(by_mode, key=group_order)]


def _is_placed(record: Mapping) -> bool:
    """Tell whether a record says where its needle is, as generate_needle.py has it."""
    return all(isinstance(field_value(record, f"meta.{name}"), int | float) for name in ("length", "depth"))
