"""Files of the official RULER generator, converted."""

import json

import pytest

from preprocess.convert_ruler import main
from utils.common_utils import UserError, read_jsonl

NIAH = (
    "Some special magic numbers are hidden within the following text. Make sure to memorize it. "
    "I will quiz you about the numbers afterwards.\n"
    "One of the special magic numbers for a-b is: 1234567. Essay text.\n"
    "What are all the special magic numbers for a-b mentioned in the provided text? "
    "The special magic numbers for a-b mentioned in the provided text are"
)
QUESTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output any other words.\n\n"
)
QA = f"{QUESTION}The following are given documents.\n\nDocument 1:\nIt is red.\n\n{QUESTION}Question: What colour?"


def write(path, *samples: dict):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    return path


def official(text: str, outputs: list[str], index: int = 0, **more) -> dict:
    return {"index": index, "input": text, "outputs": outputs, "length": 100, **more}


def test_the_official_folders(tmp_path, capsys):
    root = tmp_path / "synthetic"
    write(
        root / "4096" / "data" / "niah_multivalue" / "validation.jsonl",
        official(NIAH, ["1234567", "7654321"]),
        official(NIAH, ["1234567"], 1),
    )
    write(root / "4096" / "data" / "qa_1" / "validation.jsonl", official(QA, ["red", "Red"], answer_prefix=" Answer:"))
    write(root / "8192" / "data" / "qa_1" / "validation.jsonl", official(QA + " Answer:", ["red"]))
    main(["--input", str(root), "--output_dir", str(tmp_path / "out"), "--overwrite"])
    first, second, qa = read_jsonl(tmp_path / "out" / "ruler_4096.jsonl")
    assert first["id"] == "niah_multivalue-4096-0" and second["id"] == "niah_multivalue-4096-1"
    assert first["task"] == "ruler" and first["answer"] == ["1234567", "7654321"]
    assert first["context"] == "One of the special magic numbers for a-b is: 1234567. Essay text."
    assert first["prompt"].startswith("What are all") and first["prompt"].endswith("provided text are")
    assert first["meta"]["ruler_task"] == first["meta"]["kind"] == "niah_multivalue"
    assert (first["meta"]["length"], first["meta"]["num_tokens"], first["meta"]["source"]) == (4096, 100, "official")
    assert first["meta"]["instruction"] + first["context"] + first["meta"]["gap"] + first["prompt"] == NIAH
    # The answer prefix is a part of the prompt, wherever the generator put it.
    (other,) = read_jsonl(tmp_path / "out" / "ruler_8192.jsonl")
    assert qa["prompt"] == other["prompt"] and qa["prompt"].endswith("Question: What colour? Answer:")
    assert qa["context"] == "Document 1:\nIt is red."
    assert "ruler_4096.jsonl: 3 samples (niah_multivalue 2, qa_1 1)" in capsys.readouterr().out


def test_task_and_length_from_the_options(tmp_path):
    path = write(tmp_path / "file.jsonl", official(NIAH, ["1234567"]))
    main(["--input", str(path), "--output_dir", str(tmp_path), "--task", "niah_single_2", "--length", "4k"])
    assert next(read_jsonl(tmp_path / "ruler_4096.jsonl"))["id"] == "niah_single_2-4096-0"


@pytest.mark.parametrize(
    ("sample", "options", "message"),
    [
        (official(NIAH, ["1"]), ["--length", "4k"], "one of RULER's tasks; name it with --task"),
        (official(NIAH, ["1"]), ["--task", "vt"], "name the length with --length"),
        (official(NIAH, ["1"]), ["--task", "vt", "--length", "4k"], "sample 0: its input has not the wording of vt"),
        (official(NIAH, ["1"]), ["--task", "nih", "--length", "4k"], "--task: 'nih' is none of"),
        (official(NIAH, []), ["--task", "niah_single_1", "--length", "4k"], "'outputs' is empty"),
        (
            {"input": NIAH},
            ["--task", "niah_single_1", "--length", "4k"],
            "a text 'input' and a list of texts 'outputs'",
        ),
    ],
)
def test_files_that_are_none(tmp_path, sample, options, message):
    path = write(tmp_path / "file.jsonl", sample)
    with pytest.raises(UserError, match=message):
        main(["--input", str(path), "--output_dir", str(tmp_path / "out"), "--overwrite", *options])
    assert not (tmp_path / "out").exists()


def test_missing_empty_and_repeated_files(tmp_path):
    options = ["--output_dir", str(tmp_path / "out"), "--task", "niah_single_1", "--length", "4k"]
    (tmp_path / "empty").mkdir()
    path = write(tmp_path / "file.jsonl", official(NIAH, ["1"]), official(NIAH, ["1"]))
    for name, message in (
        ("none", "no such file"),
        ("empty", "holds no .jsonl"),
        ("file.jsonl", "2 samples have the id"),
    ):
        with pytest.raises(UserError, match=message):
            main(["--input", str(tmp_path / name), *options])
    path.write_text("\n")
    with pytest.raises(UserError, match="holds no sample"):
        main(["--input", str(path), *options])
