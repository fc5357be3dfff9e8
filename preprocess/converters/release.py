"""What the converters share: splits and counts, checked access to a release's fields, and writing a split.

find_splits(args) -> [Split, ...]      convert(split, args, counts) -> records      write_split -> <split>.jsonl
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.common_utils import UserError, atomic_write_lines, closest

SPLITS = ("train", "validation", "test")
"""Names of the splits, and of their files, that every converter uses."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Published:
    """How many of what a whole split holds, by the names under which a converter counts them."""

    counts: Mapping[str, int]
    source: str
    """Where the figures stand, as words for a message."""


@dataclass(frozen=True)
class Split:
    """A split to convert."""

    name: str
    """Ours: the stem of the file to write."""
    source: Any
    """Where the release has it; its form is the converter's own business."""
    published: Published | None = None


@dataclass
class Counts:
    """What a converter met in a split, by words that are printed as they are."""

    read: Counter = field(default_factory=Counter)
    dropped: Counter = field(default_factory=Counter)
    """What did not get into the records."""
    odd: Counter = field(default_factory=Counter)
    """What a user should know of, printed as warnings."""
    records: int = 0
    unlabelled: int = 0
    """Records whose answers the release withholds."""


@dataclass(frozen=True)
class Converter:
    """A data set that can be converted."""

    name: str
    summary: str
    """One line for `--help`."""
    add_options: Callable[[ArgumentParser], None]
    find_splits: Callable[[Namespace], list[Split]]
    """Raises a UserError where the release's files are not there."""
    convert: Callable[[Split, Namespace, Counts], Iterator[dict]]
    """Yields the records of a split and adds to its counts; raises a UserError naming file and key."""


def add_input_dir(parser: ArgumentParser, description: str) -> None:
    """Add the option for the folder with a release."""
    parser.add_argument("--input_dir", type=Path, required=True, help=description)


class Fields:
    """A JSON object of a release whose keys are checked as they are read.

    Args:
        value: what was read from the file.
        place: the file, or file and line, for messages.
        expected: what the object should be, for messages: "a QMSum meeting of data/ALL".
        key: where in the file the object stands.
    """

    def __init__(self, value: object, place: str, expected: str, key: str = ""):
        if not isinstance(value, dict):
            where = f"{place}: {key}" if key else place
            raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}; is this {expected}?")
        self.value = value
        self.place = place
        self.expected = expected
        self.key = key

    def __contains__(self, name: str) -> bool:
        return name in self.value

    def get(self, name: str, *kinds: type) -> Any:
        """Return the value of a key.

        Raises:
            UserError: it is missing, or of none of the kinds.
        """
        if name not in self.value:
            raise UserError(f"{self.place}: the key {self._full(name)} is missing; {self.expected} has it")
        value = self.value[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(kind.__name__ for kind in kinds)
            raise UserError(f"{self.place}: {self._full(name)} is of type {type(value).__name__}, expected {wanted}")
        return value

    def text(self, name: str) -> str:
        """Return a text without white space around it."""
        return self.get(name, str).strip()

    def texts(self, name: str) -> list[str]:
        """Return a list of texts as they are."""
        values = self.get(name, list)
        for number, value in enumerate(values):
            if not isinstance(value, str):
                kind = type(value).__name__
                raise UserError(f"{self.place}: {self._full(name)}[{number}] is of type {kind}, expected str")
        return values

    def child(self, name: str) -> "Fields":
        """Return the object at a key."""
        return Fields(self.get(name, dict), self.place, self.expected, self._full(name))

    def items(self, name: str) -> list["Fields"]:
        """Return the objects of a list."""
        values = self.get(name, list)
        return [Fields(value, self.place, self.expected, f"{self._full(name)}[{n}]") for n, value in enumerate(values)]

    def _full(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name


def lettered(options: Sequence[str]) -> str:
    """Return options as lines "(A) ...", "(B) ..."."""
    return "\n".join(f"({LETTERS[number]}) {option}" for number, option in enumerate(options))


def choose_splits(found: list[Split], names: str | None, known: Sequence[str], source: object) -> list[Split]:
    """Return the splits that `--splits` names, in its order; all that were found where it is None.

    Raises:
        UserError: a name is unknown, or its split was not found.
    """
    if names is None:
        return found
    by_name = {split.name: split for split in found}
    chosen = [name.strip() for name in names.split(",")]
    for name in chosen:
        if name not in known and name not in by_name:
            known = list(dict.fromkeys([*known, *by_name]))
            raise UserError(f"--splits: unknown split {name!r}; known are {', '.join(known)}.{closest(name, known)}")
        if name not in by_name:
            raise UserError(f"--splits: {source} has no split {name}; it has {', '.join(by_name)}")
    return [by_name[name] for name in dict.fromkeys(chosen)]


def write_split(converter: Converter, split: Split, args: Namespace) -> Counts:
    """Write the records of a split to `<output_dir>/<split>.jsonl`, which is complete or absent, and return the counts.

    Raises:
        UserError: the split cannot be converted, or gives no record.
    """
    counts = Counts()
    lines = _lines(converter.convert(split, args, counts), counts, split)
    atomic_write_lines(args.output_dir / f"{split.name}.jsonl", lines)
    return counts


def _lines(records: Iterator[dict], counts: Counts, split: Split) -> Iterator[str]:
    """Yield a line of JSON a record and count the records; a split without any is an error."""
    for record in records:
        yield json.dumps(record, ensure_ascii=False) + "\n"
        counts.records += 1
        counts.unlabelled += record.get("answer") == []
    if not counts.records:
        dropped = "; ".join(f"{number:,} {what}" for what, number in counts.dropped.items()) or "the split is empty"
        raise UserError(f"{split.name}: no record to write ({dropped})")


def report(split: Split, path: Path, counts: Counts) -> None:
    """Print what was read and dropped, and on stderr what is odd or differs from what is published."""
    read = ", ".join(f"{number:,} {what}" for what, number in counts.read.items())
    print(f"{path}: {counts.records:,} records from {read}")
    if dropped := ", ".join(f"{number:,} {what}" for what, number in counts.dropped.items() if number):
        print(f"  dropped: {dropped}")
    if counts.unlabelled:
        print(
            f"  {counts.unlabelled:,} records have no answer, as the release withholds them: chunk them with "
            "--unlabelled; they can be answered, not scored or trained on"
        )
    for what, number in counts.odd.items():
        if number:
            print(f"warning: {split.name}: {number:,} {what}", file=sys.stderr)
    for warning in differences(split.published, counts.read):
        print(f"warning: {split.name}: {warning}", file=sys.stderr)


def differences(published: Published | None, read: Counter) -> list[str]:
    """Return a line for each count that is not what is published."""
    if published is None:
        return []
    return [
        f"{read[what]:,} {what}, but {number:,} are published ({published.source}); is the release whole?"
        for what, number in published.counts.items()
        if read[what] != number
    ]
