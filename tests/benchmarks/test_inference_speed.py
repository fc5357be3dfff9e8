"""The benchmark measures what it says: both sides, the same text, the same number of tokens."""

import json
import sys

import pytest

from benchmarks import inference_speed
from benchmarks.inference_speed import parse_lengths, random_text, run, table
from model.checkpoint import save_model, write_manifest
from tests.conftest import build_model
from utils.common_utils import UserError


def test_both_sides_are_measured_on_the_same_contexts(model):
    tokenizer = model.decoder_tokenizer
    num_chunks = [len(model.encode_context(random_text(tokenizer, length)).chunk_tokens) for length in (100, 600)]
    measurements = run(model, [100, 600], num_tokens=3, repeats=1)
    assert [m.side for m in measurements] == ["decoder", "decoder", "E2LLM", "E2LLM"]
    decoder, e2llm = measurements[:2], measurements[2:]
    for index, length in enumerate((100, 600)):
        assert decoder[index].context_tokens == e2llm[index].context_tokens >= length
        saved = decoder[index].decoder_positions - e2llm[index].decoder_positions
        assert saved == decoder[index].context_tokens - num_chunks[index]
    for m in measurements:
        assert 0 < m.first_token_seconds < m.seconds
        assert m.seconds_per_token > 0
    text = table(measurements)
    sides = [line.split("|")[2].strip() for line in text.splitlines()[2:]]
    assert sides == ["decoder", "E2LLM", "gain"] * 2


def test_lengths_are_read():
    assert parse_lengths("1k,300,32k") == [1024, 300, 32768]
    for wrong in ("", "1m", "0", "k"):
        with pytest.raises(UserError, match="is no number of tokens such as 2000 or 8k"):
            parse_lengths(wrong)


def test_the_command_prints_and_writes(model_config, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save_model(build_model(model_config), folder)
    write_manifest(folder)
    arguments = ["--checkpoint", str(folder), "--lengths", "60", "--num_tokens", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["inference_speed", *arguments, "--output", str(tmp_path / "out.json")])
    inference_speed.main()
    assert "gain" in capsys.readouterr().out
    measured = json.loads((tmp_path / "out.json").read_text())
    assert [m["side"] for m in measured] == ["decoder", "E2LLM"]
    assert measured[0]["seconds_per_token"] is None
    monkeypatch.setattr(sys, "argv", ["inference_speed", *arguments, "--repeats", "0"])
    with pytest.raises(UserError, match="--repeats 0: must be at least 1"):
        inference_speed.main()
