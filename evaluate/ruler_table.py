"""RULER's table: a row a task, a column a length, and the means of its groups (NIAH, VT, CWE+FWE, QA).

python -m evaluate.ruler_table --predictions outputs/ruler/eval/predictions.jsonl
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate.aggregate import score_examples
from evaluate.predictions import field_value, read_predictions, select_tasks
from evaluate.ruler_metric import RULER
from evaluate.tables import markdown_table
from utils.common_utils import UserError, atomic_write_text, run_cli

GROUPS: dict[str, tuple[str, ...]] = {
    "NIAH": (
        *(f"niah_single_{number}" for number in (1, 2, 3)),
        *(f"niah_multikey_{number}" for number in (1, 2, 3)),
        "niah_multivalue",
        "niah_multiquery",
    ),
    "VT": ("vt",),
    "CWE+FWE": ("cwe", "fwe"),
    "QA": ("qa_1", "qa_2"),
}
"""Groups of tasks that are reported as one figure, the mean over their tasks."""
ALL_TASKS = tuple(task for tasks in GROUPS.values() for task in tasks)
AVERAGE = "all 13"


@dataclass(frozen=True)
class Score:
    """A figure in per cent, as RULER rounds it for a task, and what it is the mean of."""

    value: float
    num_examples: int
    num_tasks: int = 1


@dataclass(frozen=True)
class RulerTable:
    """Scores by length; a task, group or length without predictions is absent."""

    lengths: tuple[int, ...]
    tasks: dict[tuple[str, int], Score]
    """(task, length) -> mean over its examples."""
    groups: dict[tuple[str, int], Score]
    """(group, length) -> mean over its tasks, those that are there; `AVERAGE` is the group of all tasks."""


def ruler_table(predictions: Sequence[Mapping]) -> RulerTable:
    """Average RULER's score by task (`meta.ruler_task`, or the task's name) and `meta.length`, and over the groups.

    Every task weighs the same in its group, whatever its number of examples; predictions without a reference are left
    out.

    Raises:
        UserError: a record names none of the 13 tasks, or has no whole number as its `meta.length`.
    """
    scores = score_examples(predictions, [RULER]).values["ruler"].tolist()
    by_cell: dict[tuple[str, int], list[float]] = {}
    for record, score in zip(predictions, scores, strict=True):
        cell = _task_and_length(record)
        if score == score:
            by_cell.setdefault(cell, []).append(score)
    tasks = {cell: Score(round(100 * sum(each) / len(each), 2), len(each)) for cell, each in by_cell.items()}
    lengths = tuple(sorted({length for _, length in tasks}))
    groups = {}
    for name, members in {**GROUPS, AVERAGE: ALL_TASKS}.items():
        for length in lengths:
            parts = [tasks[task, length] for task in members if (task, length) in tasks]
            if parts:
                value = sum(part.value for part in parts) / len(parts)
                groups[name, length] = Score(value, sum(part.num_examples for part in parts), len(parts))
    return RulerTable(lengths, tasks, groups)


def has_place(record: Mapping) -> bool:
    """Tell whether a record says which task and length of the table it belongs to."""
    try:
        _task_and_length(record)
    except UserError:
        return False
    return True


def _task_and_length(record: Mapping) -> tuple[str, int]:
    task, length = field_value(record, "meta.ruler_task") or record["task"], field_value(record, "meta.length")
    place = f"task {record['task']!r}, id {record['id']!r}"
    if task not in ALL_TASKS:
        raise UserError(f"{place}: {task!r} is none of RULER's tasks ({', '.join(ALL_TASKS)}); choose with --task")
    if isinstance(length, bool) or not isinstance(length, int):
        raise UserError(
            f"{place}: meta.length is {length!r}, no whole number; generate_ruler.py and convert_ruler.py set it"
        )
    return task, length


def format_ruler_table(table: RulerTable) -> str:
    """Write a table in Markdown: tasks, then groups. `54.2 (5 of 8)` is the mean of a group that lacks tasks."""
    present = {task for task, _ in table.tasks}
    rows = [
        [task, *(_text(table.tasks.get((task, n))) for n in table.lengths)] for task in ALL_TASKS if task in present
    ]
    for name, members in {**GROUPS, AVERAGE: ALL_TASKS}.items():
        rows.append([f"{name} (mean)", *(_text(table.groups.get((name, n)), len(members)) for n in table.lengths)])
    header = ["task", *(f"{length:,}" for length in table.lengths)]
    return markdown_table(header, rows, right=range(1, len(header)))


def _text(score: Score | None, num_tasks: int = 1) -> str | None:
    if score is None:
        return None
    return f"{score.value:.2f}" + ("" if score.num_tasks == num_tasks else f" ({score.num_tasks} of {num_tasks})")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--predictions", type=Path, required=True, help="predictions.jsonl as written by eval.py")
    parser.add_argument("--task", action="append", default=[], help="score this task only; may be repeated")
    parser.add_argument("--output", type=Path, help="also write the scores, in percent, to this JSON file")
    arguments = parser.parse_args()
    by_mode: dict[str, list[dict]] = {}
    for record in select_tasks(read_predictions(arguments.predictions), arguments.task):
        by_mode.setdefault(record["mode"], []).append(record)
    if not by_mode:
        raise UserError(f"{arguments.predictions}: holds no prediction")
    results = {}
    for mode, predictions in by_mode.items():
        table = ruler_table(predictions)
        print(f"{mode}: RULER's string match (%) by length, {len(predictions):,} predictions\n")
        print(format_ruler_table(table))
        results[mode] = [
            {"name": name, "length": length, **asdict(score)}
            for scores in (table.tasks, table.groups)
            for (name, length), score in scores.items()
        ]
    if arguments.output is not None:
        atomic_write_text(arguments.output, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    run_cli(main)
