"""LongBench v2, on files in the release's format."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from preprocess.convert import main
from utils.common_utils import UserError, read_jsonl

REPOSITORY = Path(__file__).resolve().parents[3]
ITEM = {
    "_id": "66f",
    "domain": "Code",
    "sub_domain": "Repository",
    "difficulty": "hard",
    "length": "long",
    "question": " Which?\n",
    "choice_A": "one ",
    "choice_B": "two",
    "choice_C": "three",
    "choice_D": " four",
    "answer": "C",
    "context": "\nA long text.\n",
}


def convert(source, target) -> list[dict]:
    main(["longbench_v2", "--input_dir", str(source), "--output_dir", str(target), "--overwrite"])
    return list(read_jsonl(target / "test.jsonl"))


@pytest.mark.parametrize("form", ["json", "parquet"])
def test_one_record_an_item(tmp_path, form, capsys):
    (tmp_path / "in").mkdir()
    if form == "json":
        (tmp_path / "in" / "data.json").write_text(json.dumps([ITEM]))
    else:
        pq.write_table(pa.Table.from_pylist([ITEM]), tmp_path / "in" / "train-00000-of-00001.parquet")
    (record,) = convert(tmp_path / "in", tmp_path / "out")
    prompt = record.pop("prompt")
    assert prompt == (
        "What is the correct answer to this question: Which?\nChoices:\n(A) one\n(B) two\n(C) three\n(D) four\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )
    assert record == {
        "id": "66f",
        "task": "longbench_v2",
        "context": "A long text.",
        "answer": "C",
        "meta": {
            "options": ["one", "two", "three", "four"],
            "gold": "C",
            "difficulty": "hard",
            "length": "long",
            "domain": "Code",
            "sub_domain": "Repository",
        },
    }
    printed = capsys.readouterr()
    assert "1 records from 1 items, 1 hard, 1 long" in printed.out
    assert "1 items, but 503 are published" in printed.err and "0 easy, but 192" in printed.err


def test_template_and_prompt_together_are_the_zero_shot_prompt(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([ITEM]))
    (record,) = convert(tmp_path, tmp_path / "out")
    template = (REPOSITORY / "prompts" / "longbench_v2.txt").read_text(encoding="utf-8").rstrip("\n")
    full = template.replace("{context}", record["context"]).replace("{prompt}", record["prompt"])
    assert full == (
        "Please read the following text and answer the question below.\n\n<text>\nA long text.\n</text>\n\n"
        "What is the correct answer to this question: Which?\nChoices:\n(A) one\n(B) two\n(C) three\n(D) four\n\n"
        'Format your response as follows: "The correct answer is (insert answer here)".'
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "E"}, r"data.json\[0\]: answer is 'E', expected one of A, B, C, D"),
        ({"difficulty": "medium"}, "difficulty is 'medium', expected one of easy, hard"),
        ({"choice_B": 2}, "choice_B is of type int, expected str"),
    ],
)
def test_foreign_items_are_named(tmp_path, changes, message):
    (tmp_path / "data.json").write_text(json.dumps([ITEM | changes]))
    with pytest.raises(UserError, match=message):
        convert(tmp_path, tmp_path / "out")
    del (item := dict(ITEM))["length"]
    (tmp_path / "data.json").write_text(json.dumps([item]))
    with pytest.raises(UserError, match="the key length is missing; an item of LongBench v2 has it"):
        convert(tmp_path, tmp_path / "out")
