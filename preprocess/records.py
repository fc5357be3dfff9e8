"""Reading JSONL records: lines of bounded length from a part of a file, and what a line must hold."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from utils.common_utils import closest

KNOWN_KEYS = ("context", "prompt", "answer", "id", "task", "meta")

_READ_BYTES = 1 << 20
_MAX_COMPARED = 100


class BadRecord(ValueError):
    """A line that is no usable record: `reason` is a short fixed name to count by, the message says what is wrong."""

    def __init__(self, reason: str, message: str):
        super().__init__(message)
        self.reason = reason


@dataclass
class Record:
    """A valid line: a context and, unless it is for understanding only, a prompt with its answers."""

    context: bytes
    """UTF-8."""
    prompt: str | None
    answers: list[str]
    id: str | None
    task: str
    meta: str
    """A JSON object."""
    ignored_keys: list[str]


def iter_lines(file: BinaryIO, start: int, end: int, max_bytes: int) -> Iterator[bytes | None]:
    """Yield the lines that begin in bytes [start, end) of a file; None stands for one longer than `max_bytes`.

    Of an over-long line no more than `max_bytes` are held at a time. Ranges that adjoin yield every line exactly once.
    """
    position = start
    if start:
        # The byte before the range tells whether a line begins at `start`; if not, the line there belongs to the range
        # before, and is passed over.
        file.seek(start - 1)
        position = start - 1 + _pass_line(file, end - start + 1)
    while position < end:
        line = file.readline(max_bytes + 1)
        if not line:
            return
        position += len(line)
        if len(line) > max_bytes and not line.endswith(b"\n"):
            position += _pass_line(file)
            yield None
        else:
            yield line


def _pass_line(file: BinaryIO, at_most: float = math.inf) -> int:
    """Read to the end of the line, but no more than `at_most` bytes, and return how many bytes that took."""
    passed = 0
    while passed < at_most:
        piece = file.readline(min(_READ_BYTES, at_most - passed))
        passed += len(piece)
        if not piece or piece.endswith(b"\n"):
            break
    return passed


def parse_record(line: bytes, accept_unlabelled: bool = False) -> Record:
    """Read one line that is not blank.

    Keys whose value is null count as absent, as exports of tables write them so.

    Args:
        accept_unlabelled: let a prompt have an empty list of answers: it can be answered, not scored or trained on.

    Raises:
        BadRecord: the line is no usable record.
    """
    fields = {key: value for key, value in _load_object(line).items() if value is not None}
    ignored_keys = [key for key in fields if key not in KNOWN_KEYS]
    if "context" not in fields:
        raise BadRecord("missing_context", 'no "context"' + _suggestion("context", ignored_keys))
    context = _string(fields, "context")
    prompt = _string(fields, "prompt") if "prompt" in fields else None
    withheld = accept_unlabelled and fields.get("answer") == []
    answers = _answers(fields["answer"]) if "answer" in fields and not withheld else []
    if prompt is None and answers:
        raise BadRecord("answer_without_prompt", '"answer" without "prompt"' + _suggestion("prompt", ignored_keys))
    if prompt is not None and not answers and not withheld:
        raise BadRecord("prompt_without_answer", '"prompt" without "answer"' + _suggestion("answer", ignored_keys))
    record_id = _id(fields["id"]) if "id" in fields else None
    task = _string(fields, "task", may_be_empty=True) if "task" in fields else ""
    meta = _meta(fields.get("meta", {}))
    for key, text in (
        ("prompt", prompt),
        ("answer", "".join(answers)),
        ("id", record_id),
        ("task", task),
        ("meta", meta),
    ):
        _utf8(text or "", key)
    return Record(_utf8(context, "context"), prompt, answers, record_id, task, meta, ignored_keys)


def _load_object(line: bytes) -> dict:
    try:
        fields = json.loads(line.rstrip(b"\r\n").decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadRecord(
            "invalid_utf8", f"not UTF-8 (byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line)"
        ) from None
    except json.JSONDecodeError as error:
        raise BadRecord("broken_json", f"not valid JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of nested brackets
        raise BadRecord("broken_json", f"not readable as JSON ({error})") from None
    if not isinstance(fields, dict):
        raise BadRecord("not_an_object", f"expected one JSON object a line, found {_json_type(fields)}")
    return fields


def _string(fields: dict, key: str, may_be_empty: bool = False) -> str:
    value = fields[key]
    if not isinstance(value, str):
        raise BadRecord("wrong_type", f'"{key}" must be a string, found {_json_type(value)}')
    if not may_be_empty and not value.strip():
        raise BadRecord(f"empty_{key}", f'"{key}" is empty')
    return value


def _answers(value: object) -> list[str]:
    answers = [value] if isinstance(value, str) else value
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        found = _json_type(value)
        if isinstance(answers, list):
            found = "a list with " + next(_json_type(answer) for answer in answers if not isinstance(answer, str))
        raise BadRecord("wrong_type", f'"answer" must be a string or a list of strings, found {found}')
    if not answers or not all(answer.strip() for answer in answers):
        raise BadRecord("empty_answer", '"answer" is empty' + (" or has an empty string" if len(answers) > 1 else ""))
    return answers


def _id(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadRecord("wrong_type", f'"id" must be a string or an integer, found {_json_type(value)}')
    return str(value)


def _meta(value: object) -> str:
    if not isinstance(value, dict):
        raise BadRecord("wrong_type", f'"meta" must be an object, found {_json_type(value)}')
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise BadRecord("broken_json", '"meta" is nested too deeply') from None


def _utf8(text: str, key: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord(
            "lone_surrogate", f'"{key}" holds half of a surrogate pair (\\u{ord(text[error.start]):04x}), no character'
        ) from None


def _suggestion(key: str, ignored_keys: list[str]) -> str:
    """Point out an unknown key that was probably meant to be `key`."""
    likely = [ignored for ignored in ignored_keys[:_MAX_COMPARED] if repr(key) in closest(ignored, KNOWN_KEYS)]
    return f' (there is "{likely[0]}": did you mean "{key}"?)' if likely else ""


def _json_type(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), "null")
