"""The plots of the evaluation report: PNG files 1,000 pixels wide, drawn without a display."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evaluate.predictions import MODEL_MODE
from evaluate.training_log import OBJECTIVES, Curve

# Okabe and Ito's palette: eight colours that colour-blind readers can tell apart.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# With more lines than this in a panel, bands only hide the lines: the table has the intervals.
_MAX_LINES_WITH_BANDS = 5
_WIDTH_INCHES, _DPI = 10.0, 100
_MAX_WRITTEN_CELLS, _MAX_HEATMAP_NAMES = 200, 20


def bucket_name(bucket: Sequence[int]) -> str:
    """Write a bucket of numbers of chunks: `8`, or `8-15` for a range."""
    low, high = bucket
    return str(low) if low == high else f"{low}-{high}"


def plot_score_by_chunks(path: Path, groups: Sequence[Mapping], label: str, title: str) -> None:
    """Draw the score `label` (percent) against the number of chunks (log2), with bands for the 95 % intervals.

    Groups without kinds make one panel with a line per mode; groups with several kinds make a panel per mode, side by
    side on one scale, with a line per kind. More than five lines are drawn without bands, and the title says so.

    Args:
        groups: as the views `by_chunks` or `by_kind_chunks` of `evaluate.scoring.score_tasks`.
    """
    groups = [g for g in groups if g["group"]["chunks"] is not None and g["scores"][label]["value"] is not None]
    modes = list(dict.fromkeys(g["group"]["mode"] for g in groups))
    kinds = list(dict.fromkeys(g["group"].get("kind") for g in groups))
    num_panels = len(modes) if len(kinds) > 1 else 1
    figure = Figure(figsize=(_WIDTH_INCHES, 5.2), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, num_panels, sharey=True, squeeze=False)[0]
    lines = kinds if len(kinds) > 1 else modes
    for panel_index, axes in enumerate(panels):
        for line_index, name in enumerate(lines):
            mode, kind = (modes[panel_index], name) if len(kinds) > 1 else (name, kinds[0])
            line = [g for g in groups if (g["group"]["mode"], g["group"].get("kind")) == (mode, kind)]
            _draw_line(axes, line, label, str(name), line_index, dashed=len(kinds) == 1 and mode != MODEL_MODE)
            if len(lines) <= _MAX_LINES_WITH_BANDS:
                _draw_band(axes, line, label, line_index)
        if len(kinds) > 1:
            axes.set_title(modes[panel_index])
        _mark_chunk_axis(axes, [g["group"]["chunks"] for g in groups])
    panels[0].set_ylabel(f"{label} (%)")
    panels[0].set_ylim(0, max(1.0, panels[0].get_ylim()[1]))
    # One legend below the panels: it never covers a line, however many kinds there are.
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)
    figure.suptitle(title if len(labels) <= _MAX_LINES_WITH_BANDS else f"{title} (intervals: see the table)")
    _save(figure, path)


def _draw_line(axes: Axes, groups: Sequence[Mapping], label: str, name: str, index: int, dashed: bool) -> None:
    # The palette repeats after eight lines; the stroke then tells them apart.
    stroke = "--" if dashed else ("-", ":", "-.")[index // len(_COLORS) % 3]
    axes.plot(
        [_position(g["group"]["chunks"]) for g in groups],
        [g["scores"][label]["value"] for g in groups],
        color=_COLORS[index % len(_COLORS)],
        marker=_MARKERS[index % len(_MARKERS)],
        linestyle=stroke,
        label=name,
        clip_on=False,
        zorder=3,
    )


def _draw_band(axes: Axes, groups: Sequence[Mapping], label: str, index: int) -> None:
    """Shade the 95 % interval of a line; a single point gets a bar, since a band would have no width."""
    color = _COLORS[index % len(_COLORS)]
    positions = [_position(g["group"]["chunks"]) for g in groups]
    lows, highs = (
        [math.nan if g["scores"][label][end] is None else g["scores"][label][end] for g in groups]
        for end in ("low", "high")
    )
    if len(groups) == 1:
        axes.vlines(positions, lows, highs, color=color, alpha=0.5)
    else:
        axes.fill_between(positions, lows, highs, color=color, alpha=0.12, linewidth=0)


def _position(bucket: Sequence[int]) -> float:
    """Return the place of a bucket on the log axis: its geometric middle, and 1/2 for contexts without a chunk."""
    low, high = bucket
    return math.sqrt(low * high) if low else 0.5


def _mark_chunk_axis(axes: Axes, buckets: Sequence[Sequence[int]]) -> None:
    axes.set_xscale("log", base=2)
    names = {_position(bucket): bucket_name(bucket) for bucket in buckets}
    # Names closer than a 20th of the axis would print over each other.
    gap = math.log2(max(names) / min(names)) / 20
    shown: list[float] = []
    for position in sorted(names):
        if not shown or math.log2(position / shown[-1]) >= gap:
            shown.append(position)
    axes.set_xticks(shown, [names[position] for position in shown], rotation=45 if len(shown) > 6 else 0)
    axes.minorticks_off()
    axes.set_xlabel("chunks in the context (log2 scale)")
    axes.grid(alpha=0.3)


def plot_score_by_length(path: Path, groups: Sequence[Mapping], label: str, title: str) -> None:
    """Draw the score `label` (percent) against the tokens of the context (log2), a line per mode, the model's in front.

    Args:
        groups: as the view `by_length` of `evaluate.scoring.score_tasks`, each with a length and a score.
    """
    modes = list(dict.fromkeys(g["group"]["mode"] for g in groups))
    figure = Figure(figsize=(_WIDTH_INCHES, 5.2), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for index, mode in enumerate(modes):
        line = sorted((g for g in groups if g["group"]["mode"] == mode), key=lambda g: tuple(g["group"]["length"]))
        axes.plot(
            [_position(g["group"]["length"]) for g in line],
            [g["scores"][label]["value"] for g in line],
            color=_COLORS[index % len(_COLORS)],
            marker=_MARKERS[index % len(_MARKERS)],
            linestyle="-" if mode == MODEL_MODE else ("--", ":", "-.")[index // len(_COLORS) % 3],
            linewidth=2.5 if mode == MODEL_MODE else 1.2,
            label=mode,
            clip_on=False,
            zorder=4 if mode == MODEL_MODE else 3,
        )
    lengths = sorted({tuple(g["group"]["length"]) for g in groups})
    axes.set_xscale("log", base=2)
    axes.set_xticks([_position(length) for length in lengths], [f"{low:,}" for low, _ in lengths])
    axes.minorticks_off()
    axes.set_xlabel("tokens of the context (log2 scale; of a range, its beginning)")
    axes.set_ylabel(f"{label} (%)")
    axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=min(len(modes), 4), frameon=False)
    figure.suptitle(f"{title} (intervals: see the table)")
    _save(figure, path)


def plot_training_curves(path: Path, curves: Mapping[tuple[str, str], Curve]) -> None:
    """Draw the loss per objective over optimizer steps: train as a thin line, validation with markers, shuffled dashed.

    Args:
        curves: (split, objective) -> curve, as `read_training_curves` returns them; at least one.
    """
    objectives = [o for o in OBJECTIVES if any(objective == o for _, objective in curves)]
    figure = Figure(figsize=(_WIDTH_INCHES, 4.8), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, len(objectives), squeeze=False)[0]
    handles: dict[str, object] = {}
    for axes, objective in zip(panels, objectives, strict=True):
        for split, color, style in (
            ("train", "#56B4E9", {"linewidth": 0.9}),
            ("validation", "#D55E00", {"marker": "o", "markersize": 5}),
        ):
            curve = curves.get((split, objective), Curve())
            for points, suffix, line in (
                (curve.points, "", "-"),
                (curve.shuffled_points, ", another text's chunk tokens", "--"),
            ):
                if points:
                    name = split + suffix
                    (handles[name],) = axes.plot(
                        list(points), list(points.values()), color=color, linestyle=line, label=name, **style
                    )
        axes.set_title(objective)
        axes.set_xlabel("optimizer step")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("loss (nats a token)")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, frameon=False)
    _save(figure, path)


def plot_needle_heatmap(
    path: Path,
    lengths: Sequence[float],
    depths: Sequence[float],
    values: Mapping[tuple[float, float], float],
    title: str,
    unit: str = "tokens",
) -> None:
    """Draw scores in per cent by length of the context (columns) and depth of the needle (rows, the beginning on top).

    Each cell is written out where there are at most 200 of them; a cell that was not measured is hatched.

    Args:
        lengths, depths: ascending, at least one of each.
        values: (length, depth) -> score in per cent; cells may be absent.
        unit: of the lengths.
    """
    grid_DL = np.array([[values.get((length, depth), math.nan) for length in lengths] for depth in depths])
    height = min(10.0, max(3.6, 1.6 + 0.36 * len(depths)))
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("#dddddd")
    axes.patch.set_hatch("///")
    # Cividis reads the same to colour-blind readers, and in print.
    image = axes.imshow(np.ma.masked_invalid(grid_DL), aspect="auto", cmap="cividis", vmin=0, vmax=100)
    if grid_DL.size <= _MAX_WRITTEN_CELLS:
        for row, column in zip(*np.nonzero(~np.isnan(grid_DL)), strict=True):
            value = grid_DL[row, column]
            color = "black" if value > 55 else "white"
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=color, fontsize=8)
    for axis, ticks, names in (
        (axes.xaxis, range(len(lengths)), [f"{length:,.0f}" for length in lengths]),
        (axes.yaxis, range(len(depths)), [f"{depth:g}" for depth in depths]),
    ):
        step = -(-len(names) // _MAX_HEATMAP_NAMES)
        axis.set_ticks(list(ticks)[::step], names[::step])
    axes.tick_params(axis="x", rotation=45 if len(lengths) > 8 else 0)
    axes.set_xlabel(f"length of the context ({unit})")
    axes.set_ylabel("depth of the needle (%)")
    figure.colorbar(image, ax=axes, label="score (%)", shrink=0.9)
    figure.suptitle(title)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Write the figure under a temporary name and rename it, so that `path` is a whole picture or the former one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def plot_recovery(path: Path, by_position: Sequence[Mapping]) -> None:
    """Draw the accuracy of restated tokens by their place in the chunk, a line a kind; shuffled chunk tokens dashed.

    Args:
        by_position: as `evaluate.recovery.summarise_recovery` returns it.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, 4.8), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    for index, kind in enumerate(dict.fromkeys(row["kind"] for row in by_position)):
        rows = [row for row in by_position if row["kind"] == kind]
        positions = [100 * row["position"] for row in rows]
        color, marker = _COLORS[index % len(_COLORS)], _MARKERS[index % len(_MARKERS)]
        for key, style in (
            ("accuracy", {"linestyle": "-", "marker": marker, "label": f"{kind}s"}),
            ("accuracy_shuffled", {"linestyle": "--", "alpha": 0.7, "label": f"{kind}s, another chunk's token"}),
        ):
            axes.plot(positions, [100 * row[key] for row in rows], color=color, **style)
    axes.set_xlim(0, 100)
    axes.set_ylim(0, 102)
    axes.set_xlabel("place in the chunk (% of its characters)")
    axes.set_ylabel("tokens right (%)")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle("What is recovered of a chunk")
    _save(figure, path)


def plot_attention_by_layer(path: Path, by_layer: Sequence[Mapping], chance: float, title: str) -> None:
    """Draw by layer the attention to the evidence and to other chunks, and how often the evidence gets the most.

    Args:
        by_layer, chance: as `evaluate.attention_focus.summarise_attention` returns them.
    """
    figure = Figure(figsize=(_WIDTH_INCHES, 4.6), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, 2)
    layers = [row["layer"] for row in by_layer]
    for index, (key, name) in enumerate((("evidence_mass", "chunks of the evidence"), ("other_mass", "other chunks"))):
        values = [100 * row[key] for row in by_layer]
        panels[0].plot(layers, values, color=_COLORS[index], marker=_MARKERS[index], label=name)
    panels[0].set_ylabel("attention of the answer (%)")
    panels[0].set_ylim(bottom=0)
    panels[1].plot(layers, [100 * row["looks"] for row in by_layer], color=_COLORS[2], marker="o", label="looks")
    panels[1].axhline(100 * chance, color=_COLORS[-1], linestyle="--", label="a random chunk")
    panels[1].set_ylabel("answers that look at their evidence (%)")
    panels[1].set_ylim(0, 102)
    for axes in panels:
        axes.set_xlabel("decoder layer")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    _save(figure, path)


def plot_attention_heads(path: Path, heads: Sequence[Sequence[float]], title: str) -> None:
    """Draw how often each head (columns) of each layer (rows) gives the evidence the most attention.

    Args:
        heads: shares from 0 to 1, as `evaluate.attention_focus.summarise_attention` returns them.
    """
    grid_LA = 100 * np.array(heads)
    figure = Figure(figsize=(_WIDTH_INCHES, min(10.0, 2.0 + 0.25 * len(grid_LA))), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(grid_LA, aspect="auto", cmap="cividis", vmin=0, vmax=100)
    axes.set_xlabel("head")
    axes.set_ylabel("decoder layer")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes, label="answers (%)", shrink=0.9)
    figure.suptitle(title)
    _save(figure, path)
