"""Rows of JSONL, JSON, CSV and Parquet."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.converters.rows import count_rows, files_by_split, read_rows, table_files, value_at
from utils.common_utils import UserError

ROWS = [{"text": f"row {number}", "n": number} for number in range(130)]


def write_all(folder):
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n\n" for row in ROWS))
    (folder / "b.json").write_text(json.dumps(ROWS))
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "c.parquet")


def test_all_forms_hold_the_same_rows(tmp_path):
    write_all(tmp_path)
    paths = table_files(tmp_path)
    assert [path.name for path in paths] == ["a.jsonl", "b.json", "c.parquet"]
    for path in paths:
        assert [row for _, row in read_rows([path])] == ROWS, path.name
    assert [row for _, row in read_rows(paths)] == ROWS * 3
    assert count_rows(paths[2:]) == 130 and count_rows(paths) is None
    places = [place for place, _ in read_rows(paths[2:])]
    assert places[0].endswith("c.parquet, row 1") and places[-1].endswith("c.parquet, row 130")


def test_files_are_sorted_into_splits(tmp_path):
    names = ["test.jsonl", "valid.json", "train-00001-of-00002.parquet", "train-00000-of-00002.parquet"]
    for name in [*names, "traineeship.jsonl", "notes.jsonl", "train.txt", "TRAIN.jsonl"]:
        (tmp_path / name).write_text("")
    found = files_by_split(tmp_path)
    assert list(found) == ["train", "validation", "test"]
    assert [path.name for path in found["train"]] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert files_by_split(tmp_path / "nowhere") == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", "no parquet", "a.parquet: not a readable Parquet file"),
        ("a.json", '{"a": 1}', "a.json: expected a list of objects, found dict"),
        ("a.json", "[1", r"a.json:1: not valid JSON"),
        ("a.jsonl", '{"a": 1}\n{', r"a.jsonl:2: not valid JSON"),
        ("a.jsonl", "[1]", r"a.jsonl:1: expected a JSON object, found list"),
        ("a.csv", "x,y\n1,2\n3\n", r"a.csv, row 2 \(up to line 3\): 1 fields, but the first row names 2"),
        ("a.csv", "x,y,x\n", r"a.csv: its first row names the field 'x' 2 times"),
        ("a.csv", 'x,y\n1,2\n"3,4\n', r"a.csv: cannot be read after row 1 \(unexpected end of data\)"),
        ("a.csv", "x,y\n1,\udcff\n", r"a.csv: not valid UTF-8 after row \d"),
    ],
)
def test_foreign_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=message):
        list(read_rows([tmp_path / name]))


def test_a_parquet_file_cut_short_is_named(tmp_path):
    write_all(tmp_path)
    path = tmp_path / "c.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="c.parquet: not a readable Parquet file"):
        list(read_rows([path]))


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_csv_holds_what_was_written(tmp_path, suffix, delimiter):
    rows = [
        {"text": 'Two lines,\nthe second with "quotes",\ta tab', "n": "1"},
        {"text": "long " * 100_000, "n": ""},
        {"text": "é漢", "n": " 3 "},
    ]
    path = tmp_path / f"rows.{suffix}"
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, ["text", "n"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        file.write("\r\n")
    read = list(read_rows([path]))
    assert [row for _, row in read] == rows
    assert [place for place, _ in read] == [
        f"{path}, row {row} (up to line {line})" for row, line in ((1, 3), (2, 4), (3, 5))
    ]
    assert count_rows([path]) is None


def test_values_at_dotted_paths():
    row = {"a": {"b": {"c": 1}}, "list": [{"text": "x", "more": [1]}, {"text": "y"}, 5]}
    assert value_at(row, "a.b.c") == 1
    assert value_at(row, "list.text") == ["x", "y", None]
    assert value_at(row | {"a.b": 2}, "a.b") == 2
    assert value_at(row, "a.none.c") is None and value_at(row, "none") is None
