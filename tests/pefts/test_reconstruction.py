"""Restating held-out chunks, against the plain decoder's loss."""

import json

import pytest
import torch

from dataset.collator import DecoderRow, TokenizedUnit
from dataset.store import ChunkStore
from model.pro_model import E2LLM
from pefts.reconstruction import measure_reconstruction
from tests.conftest import build_model
from tests.model.test_pro_model import plain_loss
from tests.pefts.conftest import town_records, write_store


@pytest.fixture
def single_chunks(tmp_path):
    """A store of eight contexts of one chunk each."""
    return write_store(tmp_path / "single", [record for record in town_records(32) if "\n" not in record["context"]])


def test_reconstruction_is_the_loss_of_restating(make_eval_config, checkpoint, single_chunks):
    config = make_eval_config(
        *("--reconstruction.data", json.dumps([str(single_chunks)]), "--reconstruction.windows", "[1]"),
        *("--reconstruction.num_windows", "8", "--batch_size", "4"),
    )
    model = E2LLM.from_pretrained(checkpoint)
    measured = measure_reconstruction(config, model)
    store = ChunkStore.open(single_chunks)
    assert store.num_contexts == 8
    total = tokens = 0
    for index in range(store.num_contexts):
        text = store.context_text(index)
        prompt = model.formatter.prompt_ids(model.config.template("understanding"))
        row = DecoderRow(prompt, model.formatter.answer_ids(text), "")
        with torch.inference_mode():
            loss, count = plain_loss(model, TokenizedUnit(model.chunk_tokenizer([text])[0], [row]), row)
        total, tokens = total + loss, tokens + count
    assert measured["num_tokens"] == tokens
    assert measured["loss_true"] == pytest.approx(total / tokens, rel=1e-5)
    assert measured["loss_shuffled"] != measured["loss_true"]
    assert measured["by_window"] == [{"window": 1} | {key: measured[key] for key in measured if key != "by_window"}]


def test_reconstruction_is_shuffled_whatever_the_batch_size(make_eval_config, checkpoint, single_chunks):
    data = ("--reconstruction.data", json.dumps([str(single_chunks)]), "--reconstruction.windows", "[1]")
    measured = measure_reconstruction(make_eval_config(*data, "--batch_size", "1"), E2LLM.from_pretrained(checkpoint))
    assert measured["loss_shuffled"] != measured["loss_true"]


def test_windows_that_do_not_fit_are_left_out_by_name(make_eval_config, model_config, tmp_path, caplog):
    store = write_store(tmp_path / "long", [{"context": "\n".join(r["context"] for r in town_records(24))}] * 2)
    data = ("--reconstruction.data", json.dumps([str(store)]), "--reconstruction.num_windows", "4")
    model_config.decoder_max_tokens = 140
    model = build_model(model_config).eval()
    measured = measure_reconstruction(make_eval_config(*data, "--reconstruction.windows", "[1, 20]"), model)
    assert [part["window"] for part in measured["by_window"]] == [1]
    assert "reconstruction.windows: 20 chunks restated have no place" in caplog.text
    assert "data." not in caplog.text


def test_what_is_read_in_part_is_counted(make_eval_config, checkpoint, tmp_path, caplog):
    text = "\n".join(["Ada lives in Rome since the year 1950."] * 2)
    store = write_store(tmp_path / "two", [{"context": text}])
    model = E2LLM.from_pretrained(checkpoint)
    prompt = model.formatter.prompt_ids(model.config.template("understanding"))
    row = DecoderRow(prompt, model.formatter.answer_ids(text), "")
    model.config.decoder_max_tokens = row.length(1)
    data = ("--reconstruction.data", json.dumps([str(store)]), "--reconstruction.windows", "[2]")
    measure_reconstruction(make_eval_config(*data, "--batch_size", "2"), model)
    assert "of the windows of 2 chunks, 0 were restated in part, and 2 read without their last chunk" in caplog.text


def test_windows_that_no_context_has_are_reported(make_eval_config, checkpoint, single_chunks, caplog):
    data = ("--reconstruction.data", json.dumps([str(single_chunks)]), "--reconstruction.windows", "[2]")
    model = E2LLM.from_pretrained(checkpoint)
    assert measure_reconstruction(make_eval_config(*data), model) is None
    assert "no context has 2 chunks" in caplog.text
    assert measure_reconstruction(make_eval_config(), model) is None
