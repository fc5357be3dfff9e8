"""RULER's string match (arXiv 2404.06654): the share of references found, or whether any one is found.

python -m evaluate.ruler_metric --predictions outputs/ruler/eval/predictions.jsonl --by meta.length
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from evaluate.aggregate import Metric, text_metric
from evaluate.command_line import build_parser, run_metrics
from utils.common_utils import UserError, run_cli

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f]")
_TASK = re.compile(r"(?:^|[_\W])(niah|vt|cwe|fwe|qa)(?:[_\W]|$)")


def postprocess(prediction: str) -> str:
    """Strip, turn each control character (also a tab) into a line end, and strip again, as RULER's `evaluate.py`."""
    return _CONTROL_CHARACTERS.sub("\n", prediction.strip()).strip()


def string_match_all(prediction: str, references: Sequence[str]) -> float:
    """Return the share in [0, 1] of the references that occur in the cleaned-up prediction, whatever their case.

    RULER's score of niah_*, vt, cwe and fwe; its figure is the mean over examples in percent, rounded to 2 decimals.
    A match is of characters, not of words ("pineapple" holds "apple"), and writing a number otherwise ("7,421,098")
    loses it.

    Raises:
        UserError: there is no reference.
    """
    found = _found(prediction, references)
    return sum(found) / len(found)


def string_match_part(prediction: str, references: Sequence[str]) -> float:
    """Return 1.0 if at least one reference occurs in the cleaned-up prediction, whatever its case, else 0.0.

    RULER's score of qa_1 and qa_2. Short references are found by accident: "unknown" holds "no".

    Raises:
        UserError: there is no reference.
    """
    return float(any(_found(prediction, references)))


def _found(prediction: str, references: Sequence[str]) -> list[bool]:
    if not references:
        raise UserError(f"no reference to score the prediction {prediction[:60]!r} against; leave the example out")
    text = postprocess(prediction).lower()
    return [reference.lower() in text for reference in references]


def match_of_task(task: str) -> Callable[[str, Sequence[str]], float]:
    """Return the function that RULER scores a task by: `string_match_part` for qa, else `string_match_all`.

    Args:
        task: a name that holds niah, vt, cwe, fwe or qa as a part of its own, such as "niah_single_1" or "ruler_qa_2".

    Raises:
        UserError: it holds none of them.
    """
    match = _TASK.search(task)
    if match is None:
        raise UserError(
            f"{task!r} is no RULER task (niah_*, vt, cwe, fwe, qa_*); use string_match_all or string_match_part instead"
        )
    return string_match_part if match.group(1) == "qa" else string_match_all


def _score_task(record: dict) -> dict[str, float]:
    if not record["references"]:
        return {"ruler": float("nan")}
    task = record["meta"].get("ruler_task", record["task"])
    return {"ruler": match_of_task(str(task))(record["prediction"], record["references"])}


RULER = Metric("ruler", ("ruler",), _score_task)
STRING_MATCH_ALL = text_metric("string_match_all", string_match_all)
STRING_MATCH_PART = text_metric("string_match_part", string_match_part)


def main() -> None:
    parser = build_parser(__doc__, (RULER, STRING_MATCH_ALL, STRING_MATCH_PART), default="ruler")
    run_metrics(parser.parse_args())


if __name__ == "__main__":
    run_cli(main)
