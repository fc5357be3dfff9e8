"""Any table, by naming its fields."""

import datetime
import json
import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.convert import main
from preprocess.records import parse_record
from utils.common_utils import UserError, read_jsonl

ROWS = [
    {
        "name": 7,
        "document": {"text": " A story. "},
        "question": "Who?",
        "answers": [{"text": "Ann"}, {"text": ""}],
        "n": 1,
    },
    {"name": 8, "document": {"text": "More."}, "question": " ", "answers": [{"text": "Bob"}], "n": 2},
    {"name": 9, "document": {"text": "Last."}, "question": "Why?", "answers": [], "n": 3},
]
FIELDS = ("--context_field", "document.text", "--prompt_field", "question", "--answer_field", "answers.text")


def convert(target, *options: str, split: str = "train") -> list[dict]:
    main(["table", "--output_dir", str(target), "--overwrite", *options])
    for line in (target / f"{split}.jsonl").read_bytes().splitlines():
        parse_record(line)
    return list(read_jsonl(target / f"{split}.jsonl"))


def write_jsonl(path, rows: list[dict]):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_fields_are_mapped(tmp_path, form, capsys):
    path = tmp_path / f"rows.{form}"
    if form == "jsonl":
        write_jsonl(path, ROWS)
    elif form == "json":
        path.write_text(json.dumps(ROWS))
    else:
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    options = ("--id_field", "name", "--meta_fields", "n, document.text", "--task", "stories")
    (record,) = convert(tmp_path / "out", "--input", str(path), *FIELDS, *options)
    assert record == {
        "id": 7,
        "task": "stories",
        "context": "A story.",
        "prompt": "Who?",
        "answer": ["Ann"],
        "meta": {"n": 1, "document.text": " A story. "},
    }
    assert "dropped: 1 rows with an empty prompt, 1 rows with an empty answer" in capsys.readouterr().out


def test_csv_with_dots_in_its_names(tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text('key,article.body,summary\n7,"A story,\nin two lines.",Short.\n8,More.,\n')
    fields = ("--context_field", "article.body", "--prompt", "Summarise it.", "--answer_field", "summary")
    (record,) = convert(tmp_path / "out", "--input", str(path), *fields, "--id_field", "key")
    assert record == {"id": "7", "context": "A story,\nin two lines.", "prompt": "Summarise it.", "answer": "Short."}
    assert "dropped: 1 rows with an empty answer" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"row 1 .*: no field 'article.text' \(--context_field\); it holds \"key\""):
        convert(tmp_path / "out", "--input", str(path), "--context_field", "article.text")


def test_splits_of_a_folder_are_kept_apart(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("train", "val", "test"):
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", [{"text": name, "label": 3}])
    options = (
        "--input",
        str(tmp_path / "in"),
        "--context_field",
        "text",
        "--answer_field",
        "label",
        "--prompt",
        "Which?",
    )
    (record,) = convert(tmp_path / "out", *options, split="validation")
    assert record == {"id": "validation:0", "context": "val", "prompt": "Which?", "answer": "3"}
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == ["test", "train", "validation"]


def test_contexts_alone_serve_understanding(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"lines": ["a", "b"]}, {"lines": []}])
    assert convert(tmp_path / "out", "--input", str(path), "--context_field", "lines") == [
        {"id": "train:0", "context": "a\nb"}
    ]


def test_what_json_has_no_form_for_is_kept_as_text(tmp_path):
    rows = [{"text": "a", "date": datetime.date(2020, 1, 2)}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    options = ("--input", str(tmp_path / "rows.parquet"), "--context_field", "text", "--meta_fields", "date")
    assert convert(tmp_path / "out", *options)[0]["meta"] == {"date": "2020-01-02"}


def test_anything_the_datasets_library_loads(tmp_path, monkeypatch):
    asked = []

    def load_dataset(name, config):
        asked.append((name, config))
        if name == "broken":
            raise FileNotFoundError("not on the hub")
        return {"train": ROWS, "extra": [ROWS[0] | {"name": 5}]}

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    options = ("--dataset", "some/set", "--config", "small", *FIELDS, "--id_field", "name")
    assert [record["id"] for record in convert(tmp_path / "out", *options)] == [7]
    assert [record["id"] for record in read_jsonl(tmp_path / "out" / "extra.jsonl")] == [5]
    assert asked == [("some/set", "small")]
    with pytest.raises(UserError, match=r"--dataset=broken: could not be loaded \(FileNotFoundError: not on the hub"):
        convert(tmp_path / "out", "--dataset", "broken", *FIELDS)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="pip install datasets"):
        convert(tmp_path / "out", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--context_field", "txt"), r"rows.jsonl, row 1: no field 'txt' \(--context_field\).*Did you mean 'text'"),
        (("--context_field", "number"), r"number \(--context_field\) is of type int, expected a text"),
        (
            ("--context_field", "text", "--id_field", "list"),
            r"list \(--id_field\) is \['a'\], expected a text or a whole",
        ),
        (("--context_field", "text", "--meta_fields", "nmber"), r"no field 'nmber' \(--meta_fields\)"),
        (
            ("--context_field", "text", "--prompt", "p", "--answer_field", "deep"),
            r"deep \(--answer_field\) holds a dict, expected texts",
        ),
        (("--context_field", "text", "--prompt", "p"), "--answer_field goes with --prompt_field or --prompt"),
        (("--context_field", "text", "--answer_field", "text"), "--answer_field goes with --prompt_field or --prompt"),
        (("--context_field", "text", "--prompt", " ", "--answer_field", "text"), "--prompt: is empty"),
        (("--context_field", "text", "--config", "c"), "--config=c: goes with --dataset only"),
    ],
)
def test_mistakes_are_named(tmp_path, options, message):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "a", "number": 1, "list": ["a"], "deep": [{"a": 1}]}])
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "out", "--input", str(path), *options)


def test_the_input_must_be_a_table(tmp_path):
    (tmp_path / "rows.xlsx").write_text("a,b")
    with pytest.raises(UserError, match="rows.xlsx: the name must end in one of .jsonl"):
        convert(tmp_path / "out", "--input", str(tmp_path / "rows.xlsx"), "--context_field", "a")
    with pytest.raises(UserError, match="neither a file nor a folder with files such as train.jsonl"):
        convert(tmp_path / "out", "--input", str(tmp_path), "--context_field", "a")
