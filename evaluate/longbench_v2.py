"""LongBench v2 (arXiv 2412.15204): reading the answer as its scorer does, and its table of six accuracies.

python -m evaluate.longbench_v2 --predictions outputs/longbench_v2/eval/predictions.jsonl
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate.aggregate import Metric
from evaluate.command_line import build_parser, run_metrics
from utils.common_utils import UserError, run_cli

COLUMNS = {
    "Overall": None,
    "Easy": ("difficulty", "easy"),
    "Hard": ("difficulty", "hard"),
    "Short": ("length", "short"),
    "Medium": ("length", "medium"),
    "Long": ("length", "long"),
}
"""The table's columns, and the field and value of the items that each is about."""

GUESS = 0.25
"""What an item without a readable answer counts in the `compensated` accuracy: guessing among four."""

_ANSWERS = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))


def extract_answer(response: str) -> str | None:
    """Return the letter that a response states as the official scorer reads it, or None.

    Asterisks are removed; then the first "The correct answer is (X)" anywhere in the text counts, and only without one
    the first "The correct answer is X". Both are strict about case, spaces and colons, and the second is satisfied by
    the first letter of a word ("is Dallas" gives D). A bare letter is no answer: `em_quality` reads those.
    """
    text = response.replace("*", "")
    for pattern in _ANSWERS:
        if match := pattern.search(text):
            return match.group(1)
    return None


def _score_item(record: dict) -> dict[str, float]:
    """Score a prediction record from `meta.gold` or the first reference, `meta.difficulty` and `meta.length`."""
    meta = record["meta"]
    gold = meta.get("gold", record["references"][0] if record["references"] else None)
    if gold is None:
        return dict.fromkeys(LONGBENCH_V2.keys, float("nan"))
    if gold not in ("A", "B", "C", "D"):
        raise UserError(
            f"the metric 'longbench_v2' needs the right letter, A to D, in meta.gold or the reference: {gold!r}"
        )
    answer = extract_answer(record["prediction"])
    right = float(answer == gold)
    scores = {"longbench_v2": right}
    for column, group in COLUMNS.items():
        if group is not None:
            scores[column.lower()] = right if _value(meta, group[0]) == group[1] else float("nan")
    missing = answer is None
    return scores | {"compensated": GUESS if missing else right, "no_answer": float(missing)}


def _value(meta: Mapping, field: str) -> str | None:
    known = [group[1] for group in COLUMNS.values() if group and group[0] == field]
    value = meta.get(field)
    if value is not None and value not in known:
        raise UserError(f"meta.{field}={value!r}: LongBench v2 has {', '.join(known)}")
    return value


LONGBENCH_V2 = Metric(
    "longbench_v2",
    ("longbench_v2", "easy", "hard", "short", "medium", "long", "compensated", "no_answer"),
    _score_item,
)


def main() -> None:
    parser = build_parser(__doc__, (LONGBENCH_V2,), default="longbench_v2")
    run_metrics(parser.parse_args())


if __name__ == "__main__":
    run_cli(main)
