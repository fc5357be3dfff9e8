"""Rows of JSONL, JSON, CSV and Parquet files, and the files of a folder by split."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from utils.common_utils import UserError, read_json, read_jsonl

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".jsonl", ".json", ".parquet", *_DELIMITERS)
_SPLIT_NAMES = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_BATCH_ROWS = 64
_MAX_FIELD = (1 << 31) - 1
"""Characters of a CSV field; the library's own limit of 131,072 is less than a long context has."""


def table_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold rows, in the order of their names."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file())


def files_by_split(folder: Path) -> dict[str, list[Path]]:
    """Return the files of a folder by our split names: `train.jsonl`, `dev.json`, `test-00000-of-00002.parquet` ..."""
    found: dict[str, list[Path]] = {}
    for path in table_files(folder):
        name = re.match(r"[a-z]+", path.name)
        if name and name.group() in _SPLIT_NAMES:
            found.setdefault(_SPLIT_NAMES[name.group()], []).append(path)
    return {split: found[split] for split in dict.fromkeys(_SPLIT_NAMES.values()) if split in found}


def read_rows(paths: Sequence[Path]) -> Iterator[tuple[str, dict]]:
    """Yield the rows of files one after the other, each with its place for messages.

    A `.json` file holds a list of objects, a `.jsonl` file one object a line; the first row of `.csv` and `.tsv` names
    the fields, whose values are all texts; Parquet is read in small batches.

    Raises:
        UserError: a file cannot be read or is not what its name says.
    """
    for path in paths:
        if path.suffix == ".parquet":
            yield from _read_parquet(path)
        elif path.suffix in _DELIMITERS:
            yield from _read_csv(path)
        elif path.suffix == ".json":
            rows = read_json(path)
            if not isinstance(rows, list):
                raise UserError(f"{path}: expected a list of objects, found {type(rows).__name__}")
            for number, row in enumerate(rows):
                yield f"{path}[{number}]", row
        else:
            for number, row in enumerate(read_jsonl(path), start=1):
                yield f"{path}, row {number}", row


def count_rows(paths: Sequence[Path]) -> int | None:
    """Return the number of rows where the files tell it without being read, else None."""
    if any(path.suffix != ".parquet" for path in paths):
        return None
    return sum(_open_parquet(path).metadata.num_rows for path in paths)


def _read_csv(path: Path) -> Iterator[tuple[str, dict]]:
    csv.field_size_limit(_MAX_FIELD)
    number = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_DELIMITERS[path.suffix], strict=True)
            names = next(reader, [])
            if repeated := sorted({name for name in names if names.count(name) > 1}):
                raise UserError(
                    f"{path}: its first row names the field {repeated[0]!r} {names.count(repeated[0])} times"
                )
            for row in filter(None, reader):  # an empty line has no field
                number += 1
                place = f"{path}, row {number} (up to line {reader.line_num})"
                if len(row) != len(names):
                    raise UserError(f"{place}: {len(row)} fields, but the first row names {len(names)}")
                yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read after row {number} ({error})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 after row {number} ({error.reason})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _read_parquet(path: Path) -> Iterator[tuple[str, dict]]:
    number = 0
    try:
        for batch in _open_parquet(path).iter_batches(batch_size=_BATCH_ROWS):
            for row in batch.to_pylist():
                number += 1
                yield f"{path}, row {number}", row
    except pa.ArrowException as error:
        raise UserError(f"{path}: cannot be read after row {number} ({error})") from None


def _open_parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error})") from None


def value_at(row: dict, field: str) -> object:
    """Return the value at a dotted path, None where it is not there; in a list, the values of its items.

    A field of the row whose own name has the dots comes first, as columns of CSV files may be called so.

    `value_at({"answers": [{"text": "a"}, {"text": "b"}]}, "answers.text")` is `["a", "b"]`.
    """
    if field in row:
        return row[field]
    value: object = row
    for part in field.split("."):
        if isinstance(value, list):
            value = [item.get(part) if isinstance(item, dict) else None for item in value]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def describe(row: dict) -> str:
    """Return the names of a row's fields, as a message shows them."""
    return json.dumps(list(row), ensure_ascii=False)[1:-1] or "nothing"
