"""Needle in a haystack: are the needles' facts in the answer? Scores, a table length x depth, and a heatmap.

python -m evaluate.niah_metric --predictions outputs/needle/eval/predictions.jsonl --heatmap_dir plots
"""

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate.aggregate import Metric, score_examples
from evaluate.command_line import build_parser, read_selected, run_metrics
from evaluate.plots import plot_needle_heatmap
from evaluate.predictions import field_value
from evaluate.tables import markdown_table
from evaluate.text_normalization import normalize_squad
from utils.common_utils import UserError, run_cli

# What carries no content in the answers of needles: function words, and no verb or noun.
_STOP_WORDS = frozenset(
    "a an the and or of in on at to for from by with as is are was were be been it its this that these those there "
    "he she they them his her their i you we our your my not".split()
)


def needle_substring(prediction: str, references: Sequence[str]) -> float:
    """Return the share in [0, 1] of the references that occur in the prediction, whatever their case and white space.

    All references are asked for, none stands for another: with one needle the score is 0 or 1. A match is of
    characters, not of words ("pineapple" holds "apple").

    Raises:
        UserError: there is no reference.
    """
    text = _squeeze(prediction)
    return sum(_squeeze(reference) in text for reference in _checked(prediction, references)) / len(references)


def needle_exact(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if the prediction says the references and nothing else, after SQuAD normalisation, else 0.0.

    Several references may come in any order, separated by commas, semicolons, line ends or "and".

    Raises:
        UserError: there is no reference.
    """
    wanted = sorted(map(normalize_squad, _checked(prediction, references)))
    if [normalize_squad(prediction)] == wanted:
        return 1.0
    if len(wanted) == 1:
        return 0.0
    parts = (normalize_squad(part) for part in re.split(r"[;\n]|,\s|\band\b", prediction))
    return float(sorted(part for part in parts if part) == wanted)


def keyword_recall(prediction: str, references: Sequence[str]) -> float:
    """Return the share in [0, 1] of the references' content words that the prediction has, each counted once.

    The substitute for the model judge of the published test, where an answer in other words is to earn something.
    Words are compared after SQuAD normalisation; function words ("a", "on") do not count, unless there is nothing else.

    Raises:
        UserError: there is no reference.
    """
    words = set(" ".join(map(normalize_squad, _checked(prediction, references))).split())
    keywords = words - _STOP_WORDS or words
    return len(keywords & set(normalize_squad(prediction).split())) / len(keywords) if keywords else 0.0


def _squeeze(text: str) -> str:
    return " ".join(text.lower().split())


def _checked(prediction: str, references: Sequence[str]) -> Sequence[str]:
    if not references:
        raise UserError(f"no reference to score the prediction {prediction[:60]!r} against; leave the example out")
    return references


def _score(record: dict) -> dict[str, float]:
    scores = {"substring": needle_substring, "exact": needle_exact, "keyword_recall": keyword_recall}
    if not record["references"]:
        return dict.fromkeys(scores, float("nan"))
    return {key: function(record["prediction"], record["references"]) for key, function in scores.items()}


NEEDLE = Metric("needle", ("substring", "exact", "keyword_recall"), _score)


@dataclass(frozen=True)
class DepthGrid:
    """Mean scores in per cent by length (rows, ascending) and depth (columns, ascending), and how many they are of."""

    lengths: tuple[float, ...]
    depths: tuple[float, ...]
    values: dict[tuple[float, float], float]
    """(length, depth) -> mean; a cell without predictions is absent."""
    counts: dict[tuple[float, float], int]
    unit: str
    """Of the lengths."""

    def mean(self, length: float | None = None, depth: float | None = None) -> float | None:
        """Return the mean over the predictions of a row, a column, or all, in per cent."""
        cells = [cell for cell in self.values if length in (None, cell[0]) and depth in (None, cell[1])]
        total = sum(self.counts[cell] for cell in cells)
        return sum(self.values[cell] * self.counts[cell] for cell in cells) / total if total else None


def depth_grid(predictions: Sequence[Mapping], key: str = "substring") -> DepthGrid:
    """Average a score of `NEEDLE` by `meta.length` and `meta.depth`, as generate_needle.py writes them.

    Predictions without a reference are left out.

    Raises:
        UserError: a record lacks one of the two, or they are no numbers, or units are mixed; or `key` is unknown.
    """
    if key not in NEEDLE.keys:
        raise UserError(f"score {key!r} is not one of {', '.join(NEEDLE.keys)}")
    scores = score_examples(predictions, [NEEDLE]).values[NEEDLE.label(key)]
    by_cell: dict[tuple[float, float], list[float]] = {}
    for record, score in zip(predictions, scores.tolist(), strict=True):
        cell = _cell(record)
        if score == score:
            by_cell.setdefault(cell, []).append(score)
    units = {length_unit(record) for record in predictions}
    if len(units) > 1:
        raise UserError(f"lengths in {' and '.join(sorted(units))} do not go into one table; choose with --task")
    return DepthGrid(
        lengths=tuple(sorted({length for length, _ in by_cell})),
        depths=tuple(sorted({depth for _, depth in by_cell})),
        values={cell: 100 * sum(each) / len(each) for cell, each in by_cell.items()},
        counts={cell: len(each) for cell, each in by_cell.items()},
        unit=units.pop() if units else "tokens",
    )


def length_unit(record: Mapping) -> str:
    """Return what the length of a record's context is counted in."""
    return str(field_value(record, "meta.unit") or "tokens")


def has_place(record: Mapping) -> bool:
    """Tell whether a record says which length and depth of the grid it belongs to."""
    try:
        _cell(record)
    except UserError:
        return False
    return True


def _cell(record: Mapping) -> tuple[float, float]:
    return _number(record, "meta.length"), _number(record, "meta.depth")


def _number(record: Mapping, field: str) -> float:
    value = field_value(record, field)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(
            f"task {record['task']!r}, id {record['id']!r}: {field} is {value!r}, no number; the table length x depth "
            "is for data of generate_needle.py (choose its task with --task)"
        )
    return value


def grid_table(grid: DepthGrid) -> str:
    """Write the grid in Markdown: a row a length, a column a depth, and the means of both."""
    header = [grid.unit, "n", *(f"{depth:g} %" for depth in grid.depths), "all"]
    rows = []
    for length in (*grid.lengths, None):
        count = sum(count for cell, count in grid.counts.items() if length in (None, cell[0]))
        if length is None:
            cells = [grid.mean(depth=depth) for depth in grid.depths]
        else:
            cells = [grid.values.get((length, depth)) for depth in grid.depths]
        name = "all" if length is None else f"{length:,.0f}"
        rows.append([name, count, *(_percent(value) for value in (*cells, grid.mean(length=length)))])
    return markdown_table(header, rows, right=range(1, len(header)))


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def main() -> None:
    parser = build_parser(__doc__, (NEEDLE,), default=NEEDLE.name)
    parser.add_argument("--score", choices=NEEDLE.keys, default="substring", help="of the table length x depth")
    parser.add_argument(
        "--heatmap_dir", type=Path, help="draw the table as PNG files, one a task and mode, in this folder"
    )
    arguments = parser.parse_args()
    run_metrics(arguments)
    parts: dict[tuple[str, str], list[dict]] = {}
    for record in read_selected(arguments):
        parts.setdefault((record["task"], record["mode"]), []).append(record)
    for (task, mode), predictions in parts.items():
        grid = depth_grid(predictions, arguments.score)
        print(f"\n{task}, {mode}: {NEEDLE.label(arguments.score)} by length and depth of the needle (%)\n")
        print(grid_table(grid), end="")
        if arguments.heatmap_dir:
            path = arguments.heatmap_dir / f"heatmap_{task}_{mode}.png"
            plot_needle_heatmap(
                path, grid.lengths, grid.depths, grid.values, f"{task}, {mode}: {arguments.score}", grid.unit
            )
            print(f"\nplot: {path}")


if __name__ == "__main__":
    run_cli(main)
