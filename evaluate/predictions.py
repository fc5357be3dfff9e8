"""Reading `predictions.jsonl`, the file that `eval.py` appends to and every metric reads."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.common_utils import UserError, closest

MODEL_MODE = "model"
"""The mode of the predictions of the model itself; every other mode is something to compare it with."""

_TEXTS = ("task", "id", "mode", "prediction")
_OPTIONAL_TYPES = {
    "prompt": (str, "a text"),
    "truncated": (bool, "true or false"),
    "meta": (dict, "an object"),
    "timing": (dict, "an object"),
}
_OPTIONAL_COUNTS = (
    "num_chunks",
    "num_chunk_tokens",
    "context_tokens",
    "context_chars",
    "context_positions",
    "decoder_positions",
    "trimmed_chunk_tokens",
    "rope_factor",
)


def read_predictions(path: Path) -> list[dict]:
    """Read and check predictions, in file order; `meta` is set to {} where it is absent.

    A line repeated word for word (an evaluation resumed after its last write) is read once. Files of processes that
    are still at work, or were ended, lie beside it until the next run of eval.py joins them; stderr is told of them.

    Raises:
        UserError: the file is missing, a line is not a valid record, or the same (task, mode, id) has two different
            records; the message names file and line.
    """
    parts = sorted(Path(path).parent.glob("predictions.part-*.jsonl"))
    if parts:
        print(
            f"{path}: the predictions of {len(parts)} processes beside it ({parts[0].name}, ...) are not read; run "
            "eval.py again with the same options to finish and join them",
            file=sys.stderr,
        )
    records: dict[tuple[str, str, str], dict] = {}
    first_lines: dict[tuple[str, str, str], int] = {}
    try:
        file = open(path, "rb")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            record = _parse_line(f"{path}:{number}", line)
            key = (record["task"], record["mode"], record["id"])
            if key in records and records[key] != record:
                raise UserError(
                    f"{path}:{number}: task {key[0]!r}, mode {key[1]!r}, id {key[2]!r} has another prediction,"
                    f" on line {first_lines[key]}; remove one of the two lines"
                )
            records.setdefault(key, record)
            first_lines.setdefault(key, number)
    return list(records.values())


def _parse_line(place: str, line: bytes) -> dict:
    try:
        record = json.loads(line.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not valid JSON ({error.msg} at column {error.colno}); remove the line") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not valid UTF-8 ({error.reason} at byte {error.start}); remove the line") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: expected a JSON object, found {type(record).__name__}")
    for name in _TEXTS:
        if not isinstance(record.get(name), str):
            raise UserError(f"{place}: {name!r} must be a text, found {record.get(name)!r}")
    references = record.get("references")
    if not isinstance(references, list) or not all(isinstance(reference, str) for reference in references):
        raise UserError(f"{place}: 'references' must be a list of texts, found {references!r}")
    for name, (expected, description) in _OPTIONAL_TYPES.items():
        if name in record and not isinstance(record[name], expected):
            raise UserError(f"{place}: {name!r} must be {description}, found {record[name]!r}")
    for name in _OPTIONAL_COUNTS:
        value = record.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise UserError(f"{place}: {name!r} must be a whole number, 0 or more, found {value!r}")
    record.setdefault("meta", {})
    return record


def select_tasks(predictions: Sequence[dict], tasks: Sequence[str]) -> list[dict]:
    """Return the predictions of the named tasks; all where none is named.

    Raises:
        UserError: no prediction has one of the names.
    """
    known = {record["task"] for record in predictions}
    for task in tasks:
        if task not in known:
            names = ", ".join(sorted(known)) or "none"
            raise UserError(f"no predictions of task {task!r}; tasks in the file: {names}.{closest(task, known)}")
    return [record for record in predictions if not tasks or record["task"] in tasks]


def split_asked(predictions: Sequence[dict], tasks: Sequence[Mapping]) -> tuple[list[dict], list[dict]]:
    """Part predictions into those that tasks ask for and the others, which earlier evaluations of the folder left.

    Args:
        tasks: `{"name": str}` each, optionally with "modes" and "ids"; without them, all of the task are asked for.
    """
    asked: list[dict] = []
    others: list[dict] = []
    wanted = {
        task["name"]: {key: set(task[field]) for key, field in (("mode", "modes"), ("id", "ids")) if field in task}
        for task in tasks
    }
    for record in predictions:
        limits = wanted.get(record["task"])
        is_asked = limits is not None and all(record[key] in values for key, values in limits.items())
        (asked if is_asked else others).append(record)
    return asked, others


def field_value(record: dict, field: str) -> str | int | float | bool | None:
    """Return the value at a dotted path such as `meta.kind`, or None where the record lacks it.

    Raises:
        UserError: the value is a list or an object, by which nothing can be grouped.
    """
    value = record
    for part in field.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, list | dict):
        raise UserError(f"cannot group by {field!r}: task {record['task']!r}, id {record['id']!r} has {value!r} there")
    return value


def group_order(values: tuple) -> tuple:
    """Return a sort key for group values: numbers and ranges by size, "model" before other texts, None last."""
    return tuple(_value_order(value) for value in values)


def _value_order(value: object) -> tuple:
    if value is None:
        return (3,)
    if isinstance(value, tuple):
        return (1, *value)
    return (0, value) if isinstance(value, int | float) else (2, value != MODEL_MODE, str(value))
