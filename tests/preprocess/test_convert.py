"""The entry point of the converters, and what they share."""

import json
import subprocess
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest

from preprocess.convert import CONVERTERS, main
from preprocess.converters.release import (
    Converter,
    Counts,
    Fields,
    Published,
    Split,
    choose_splits,
    differences,
    lettered,
    report,
    write_split,
)
from utils.common_utils import UserError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("start", [["preprocess/convert.py"], ["-m", "preprocess.convert"]])
def test_it_runs_as_a_script_and_as_a_module(tmp_path, start):
    command = [sys.executable, *start, "qmsum", "--input_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --input_dir=") and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [name for name in CONVERTERS if name != "table"])
def test_a_folder_that_is_not_the_release_is_refused(tmp_path, name):
    (tmp_path / "README.md").write_text("mine")
    with pytest.raises(UserError, match=str(tmp_path)):
        main([name, "--input_dir", str(tmp_path), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_output_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output_dir=.*this is a file"):
        main(["qmsum", "--input_dir", str(tmp_path), "--output_dir", str(tmp_path / "file")])


def test_every_data_set_has_a_prompt_template():
    for name in CONVERTERS:
        if name != "table":
            template = (REPOSITORY / "prompts" / f"{name}.txt").read_text(encoding="utf-8")
            assert template.count("{context}") == template.count("{prompt}") == 1, name
            # A prompt must not begin with a chunk token.
            assert not template.startswith("{context}"), name


def converter_of(*records: dict) -> Converter:
    def convert(split, args, counts):
        counts.read["things"] += len(records)
        counts.dropped["bad things"] += 1
        yield from records

    return Converter("x", "", lambda parser: None, lambda args: [], convert)


def test_a_split_is_written_whole_or_not_at_all(tmp_path):
    args = Namespace(output_dir=tmp_path)
    counts = write_split(converter_of({"answer": "ä"}, {"answer": []}), Split("train", None), args)
    assert (tmp_path / "train.jsonl").read_text(encoding="utf-8") == '{"answer": "ä"}\n{"answer": []}\n'
    assert (counts.records, counts.unlabelled) == (2, 1)
    with pytest.raises(UserError, match=r"test: no record to write \(1 bad things\)"):
        write_split(converter_of(), Split("test", None), args)

    def fail(split, args, counts):
        yield {"answer": "b"}
        raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        write_split(Converter("x", "", lambda p: None, lambda a: [], fail), Split("train", None), args)
    assert [path.name for path in tmp_path.iterdir()] == ["train.jsonl"]
    assert "ä" in (tmp_path / "train.jsonl").read_text(encoding="utf-8"), "a failed run leaves what was there"


def test_the_report_has_both_numbers_where_a_count_is_not_the_published_one(capsys):
    published = Published({"meetings": 1000, "queries": 3}, "the paper")
    counts = Counts(Counter(meetings=999, queries=3), Counter({"turns": 0, "lines": 2}), Counter(odd=1, fine=0), 5, 4)
    report(Split("train", None, published), Path("out"), counts)
    printed = capsys.readouterr()
    assert printed.out.startswith("out: 5 records from 999 meetings, 3 queries\n  dropped: 2 lines\n")
    assert "4 records have no answer" in printed.out and "--unlabelled" in printed.out
    assert printed.err.splitlines() == [
        "warning: train: 1 odd",
        "warning: train: 999 meetings, but 1,000 are published (the paper); is the release whole?",
    ]
    assert differences(None, Counter()) == []


def test_splits_are_chosen_by_name():
    found = [Split("train", 1), Split("test", 2)]
    assert choose_splits(found, None, ("train", "test"), "it") == found
    assert [split.source for split in choose_splits(found, "test, train,test", ("train", "test"), "it")] == [2, 1]
    with pytest.raises(UserError, match="it has no split validation; it has train, test"):
        choose_splits(found, "validation", ("train", "validation", "test"), "it")
    with pytest.raises(UserError, match="unknown split 'tset'.*Did you mean 'test'"):
        choose_splits(found, "tset", ("train", "validation", "test"), "it")


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (lambda f: f.text("none"), "f.json: the key none is missing; a thing has it"),
        (lambda f: f.text("number"), "number is of type int, expected str"),
        (lambda f: f.get("flag", int), "flag is of type bool, expected int"),
        (lambda f: f.get("texts", str, int), "texts is of type list, expected str or int"),
        (lambda f: f.texts("mixed"), r"mixed\[1\] is of type int, expected str"),
        (lambda f: f.child("number"), "number is of type int, expected dict"),
        (lambda f: f.child("inner").text("none"), "the key inner.none is missing"),
        (lambda f: f.items("inners")[0].child("deep").text("none"), r"the key inners\[0\].deep.none is missing"),
        (lambda f: f.items("texts"), r"f.json: texts\[0\]: expected a JSON object, found str; is this a thing"),
    ],
)
def test_fields_name_file_and_key(read, message):
    value = {"number": 1, "flag": True, "texts": ["a"], "mixed": ["a", 1], "inner": {}, "inners": [{"deep": {}}]}
    with pytest.raises(UserError, match=message):
        read(Fields(value, "f.json", "a thing"))


def test_fields_are_read():
    fields = Fields(json.loads('{"text": " a ", "list": ["b "], "none": null}'), "f.json", "a thing")
    assert fields.text("text") == "a" and fields.texts("list") == ["b "]
    assert fields.get("none", str, type(None)) is None
    assert "text" in fields and "other" not in fields


def test_options_are_lettered():
    assert lettered(["x", "y"]) == "(A) x\n(B) y"
