"""Reading predictions: every malformed line is named, nothing is dropped."""

import json

import pytest

from evaluate.predictions import field_value, group_order, read_predictions
from utils.common_utils import UserError


def good(**changes) -> dict:
    return {"task": "t", "id": "1", "mode": "model", "prediction": "x", "references": ["x"], **changes}


def write(path, *lines: bytes | dict) -> None:
    path.write_bytes(b"".join(x if isinstance(x, bytes) else json.dumps(x).encode() + b"\n" for x in lines))


def test_reads_in_order_and_adds_meta(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, good(id="b"), b"\n", good(id="a", meta={"kind": "needle"}, truncated=True, num_chunks=0))
    records = read_predictions(path)
    assert [record["id"] for record in records] == ["b", "a"]
    assert records[0]["meta"] == {} and records[1]["meta"] == {"kind": "needle"}


@pytest.mark.parametrize(
    "line, message",
    [
        (b'{"task": "t", "id"', "not valid JSON"),
        (b"[1]\n", "expected a JSON object, found list"),
        (b'{"task": "\xff"}\n', "not valid UTF-8"),
        (good(prediction=None), "'prediction' must be a text, found None"),
        (good(id=3), "'id' must be a text, found 3"),
        (good(references="x"), "'references' must be a list of texts"),
        (good(references=["x", 2]), "'references' must be a list of texts"),
        (good(num_chunks=-1), "'num_chunks' must be a whole number"),
        (good(context_tokens=True), "'context_tokens' must be a whole number"),
        (good(truncated=1), "'truncated' must be true or false"),
        (good(meta=[]), "'meta' must be an object"),
    ],
)
def test_malformed_line_is_named(tmp_path, line, message):
    path = tmp_path / "p.jsonl"
    write(path, good(id="0"), b"\n", line)
    with pytest.raises(UserError, match=f"p.jsonl:3: {message}"):
        read_predictions(path)


def test_a_missing_file_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="p.jsonl: cannot be read"):
        read_predictions(tmp_path / "p.jsonl")


def test_a_repeated_line_counts_once_and_a_contradiction_is_an_error(tmp_path):
    path = tmp_path / "p.jsonl"
    write(path, good(), good(mode="closed_book"), good())
    assert len(read_predictions(path)) == 2
    write(path, good(), good(mode="closed_book"), good(prediction="y"))
    with pytest.raises(UserError, match=r"p.jsonl:3: task 't', mode 'model', id '1' .* on line 1"):
        read_predictions(path)


def test_files_of_processes_beside_it_are_told_of(tmp_path, capsys):
    write(tmp_path / "predictions.jsonl", good())
    assert len(read_predictions(tmp_path / "predictions.jsonl")) == 1
    assert capsys.readouterr().err == ""
    for index in range(2):
        write(tmp_path / f"predictions.part-{index:05d}.jsonl", good(id="2"))
    assert len(read_predictions(tmp_path / "predictions.jsonl")) == 1
    assert "the predictions of 2 processes beside it (predictions.part-00000.jsonl, ...) are not read; run" in (
        capsys.readouterr().err
    )


def test_field_value_follows_dots():
    record = good(meta={"kind": "needle", "options": ["a"]})
    assert field_value(record, "meta.kind") == "needle"
    assert field_value(record, "meta.depth") is field_value(record, "mode.kind") is None
    with pytest.raises(UserError, match="cannot group by 'meta.options'"):
        field_value(record, "meta.options")


def test_group_order_sorts_numbers_by_size_and_the_model_first():
    values = [("closed_book", 16), ("model", None), ("model", 9), ("closed_book", 2), ("model", 16), ("a", 1)]
    assert sorted(values, key=group_order) == [
        ("model", 9),
        ("model", 16),
        ("model", None),
        ("a", 1),
        ("closed_book", 2),
        ("closed_book", 16),
    ]
