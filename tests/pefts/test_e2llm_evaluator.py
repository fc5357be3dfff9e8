"""Predictions that depend on the settings alone, whatever was interrupted or batched, and reconstruction."""

import json

import pytest
import torch

from dataset.collator import DecoderRow, TokenizedUnit
from dataset.store import ChunkStore
from model.checkpoint import save_model, write_manifest
from model.pro_model import E2LLM
from pefts import eval_contexts
from pefts.e2llm_evaluator import Evaluator
from pefts.reconstruction import measure_reconstruction
from tests.conftest import build_model
from tests.model.test_pro_model import plain_loss
from tests.pefts.conftest import predictions_of, town_records, write_store
from utils.common_utils import UserError

SAMPLING = ("--sampling.do_sample", "true", "--sampling.temperature", "2.0")


def evaluator_of(config) -> Evaluator:
    return Evaluator(config, E2LLM.from_pretrained(config.checkpoint))


def by_id(records: list[dict]) -> dict[str, dict]:
    """Records by id, each id once."""
    result = {record["id"]: record for record in records}
    assert len(result) == len(records)
    return result


def cut_file(path, share: float) -> int:
    """Leave the first part of a file, as a killed process would, and return how many whole lines are left."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path.read_bytes().count(b"\n")


def test_predictions_are_those_of_single_prompts(make_eval_config, validation_store):
    evaluator = evaluator_of(make_eval_config())
    records = by_id(predictions_of(evaluator))
    store = ChunkStore.open(validation_store)
    assert len(records) == store.num_examples == 16
    decode = evaluator.model.decoder_tokenizer
    for index in range(store.num_examples):
        example, record = store.example(index), records[store.example(index).id]
        context = store.context_text(example.context_index)
        (answer,) = evaluator.model.generate(
            [example.prompt], evaluator.model.encode_context(context), max_new_tokens=6
        )
        assert record["prediction"] == answer
        assert (record["task"], record["mode"]) == ("towns", "model")
        assert (record["prompt"], record["references"]) == (example.prompt, example.answers)
        assert record["num_chunks"] == record["num_chunk_tokens"] == context.count("\n") + 1
        assert record["context_chars"] == len(context)
        assert record["context_tokens"] == len(decode(context, add_special_tokens=False)["input_ids"])
    assert len({record["prediction"] for record in records.values()}) > 3


@pytest.mark.parametrize("batch_size", ["1", "3", "16"])
def test_the_batch_size_changes_nothing_and_a_context_is_encoded_once(
    make_eval_config, validation_store, tmp_path, monkeypatch, batch_size
):
    encoded = []
    encode_chunks = eval_contexts.encode_chunks

    def counting(model, chunks):
        encoded.extend(chunks)
        return encode_chunks(model, chunks)

    expected = by_id(predictions_of(evaluator_of(make_eval_config("--output_dir", str(tmp_path / "expected")))))
    monkeypatch.setattr(eval_contexts, "encode_chunks", counting)
    assert by_id(predictions_of(evaluator_of(make_eval_config("--batch_size", batch_size)))) == expected
    store = ChunkStore.open(validation_store)
    chunks = [chunk for index in range(store.num_contexts) for chunk in store.context_chunks(index)]
    assert sorted(encoded) == sorted(chunks)


@pytest.mark.parametrize("arguments", [(), SAMPLING], ids=["greedy", "sampled"])
def test_an_interrupted_evaluation_goes_on(make_eval_config, tmp_path, arguments):
    arguments = (*arguments, "--batch_size", "5")
    expected = predictions_of(evaluator_of(make_eval_config("--output_dir", str(tmp_path / "uncut"), *arguments)))
    evaluator = evaluator_of(make_eval_config(*arguments))
    assert predictions_of(evaluator) == expected
    left = cut_file(evaluator.files.path, 0.55)
    assert left % 5
    evaluator = evaluator_of(make_eval_config(*arguments))
    assert len(evaluator.done) == left
    assert predictions_of(evaluator) == expected
    again = evaluator_of(make_eval_config(*arguments))
    again.model = None
    assert predictions_of(again) == expected, "what is answered is not answered again"


def test_sampling_depends_on_its_seed(make_eval_config, tmp_path):
    texts = []
    for seed in ("0", "1"):
        config = make_eval_config(*SAMPLING, "--sampling.seed", seed, "--output_dir", str(tmp_path / seed))
        texts.append([record["prediction"] for record in predictions_of(evaluator_of(config))])
    assert texts[0] != texts[1]


def test_unusual_line_ends_in_texts_do_not_break_a_resume(make_eval_config, tmp_path):
    records = town_records(2)
    records[0]["prompt"] = "Who\u2028lives\u0085in\u2029?"
    store = write_store(tmp_path / "odd", records)
    expected = predictions_of(evaluator_of(make_eval_config(data=[str(store)])))
    assert "\u2028" in "".join(record["prompt"] for record in expected)
    evaluator = evaluator_of(make_eval_config(data=[str(store)]))
    assert len(evaluator.done) == 4
    assert predictions_of(evaluator) == expected


def test_closed_book_reads_no_chunk_tokens(make_eval_config):
    evaluator = evaluator_of(make_eval_config("--modes", '["model", "closed_book"]'))
    records = predictions_of(evaluator)
    assert [record["mode"] for record in records] == ["model"] * 16 + ["closed_book"] * 16
    for record in records[16:]:
        assert record["num_chunks"] == record["num_chunk_tokens"] == 0
        empty = evaluator.model.encode_context("")
        assert record["prediction"] == evaluator.model.generate([record["prompt"]], empty, max_new_tokens=6)[0]
    by_prompt = [{record["prompt"]: record["prediction"] for record in part} for part in (records[:16], records[16:])]
    assert by_prompt[0] != by_prompt[1]


def test_max_contexts_takes_the_first_ones_and_more_can_be_added(make_eval_config):
    first = by_id(predictions_of(evaluator_of(make_eval_config(max_contexts=3))))
    assert len(first) == 6
    assert len({record["context_chars"] for record in first.values()}) <= 3
    every = by_id(predictions_of(evaluator_of(make_eval_config())))
    assert len(every) == 16
    assert first.items() <= every.items()


def test_examples_are_asked_with_the_template_of_their_task(model_config, make_eval_config, checkpoint, tmp_path):
    templates = {"loud": "{context}\n{prompt}!!!", "quiet": "{context} {prompt}"}
    model_config.templates |= templates
    save_model(build_model(model_config), fresh(tmp_path / "templates"))
    write_manifest(tmp_path / "templates")
    records = [record | {"task": task} for record, task in zip(town_records(4), ["loud", "quiet"] * 4, strict=True)]
    store = write_store(tmp_path / "mixed", records)
    config = make_eval_config("--checkpoint", str(tmp_path / "templates"), data=[str(store)])
    evaluator = evaluator_of(config)
    texts = {context["prompt"]: context for context in records}
    for record in predictions_of(evaluator):
        context = evaluator.model.encode_context(texts[record["prompt"]]["context"])
        template = templates[texts[record["prompt"]]["task"]]
        (answer,) = evaluator.model.generate([record["prompt"]], context, template=template, max_new_tokens=6)
        assert record["prediction"] == answer
    (tmp_path / "own.txt").write_text("{prompt} {context} {prompt}")
    with pytest.raises(UserError, match=r"prompt_file='.*own.txt': the template holds {prompt} 2 times"):
        evaluator_of(make_eval_config(prompt_file=str(tmp_path / "own.txt")))


def fresh(folder):
    folder.mkdir()
    return folder


def test_other_settings_are_refused_unless_overwriting(make_eval_config, model_config, tmp_path):
    evaluator = evaluator_of(make_eval_config())
    before = predictions_of(evaluator)
    (tmp_path / "template.txt").write_text("{context} {prompt} Answer:")
    for arguments, task, changed in (
        (("--sampling.num_beams", "2"), {}, "sampling changed"),
        ((), {"max_new_tokens": 7}, "task 'towns' changed"),
        ((), {"prompt_file": str(tmp_path / "template.txt")}, "task 'towns' changed"),
    ):
        with pytest.raises(UserError, match=f"predictions.jsonl: made with other settings .{changed}; see settings"):
            evaluator_of(make_eval_config(*arguments, **task))
    # The same path with other weights, as `best` has after more training.
    model = build_model(model_config, seed=1)
    folder = fresh(tmp_path / "weights")
    save_model(model, folder)
    write_manifest(folder)
    (tmp_path / "checkpoint").rename(tmp_path / "old")
    folder.rename(tmp_path / "checkpoint")
    with pytest.raises(UserError, match=r"other settings \(weights changed; .*--overwrite true"):
        evaluator_of(make_eval_config())
    after = predictions_of(evaluator_of(make_eval_config("--overwrite", "true")))
    assert [record["id"] for record in after] == [record["id"] for record in before]
    assert after != before
    evaluator.files.path.with_name("settings.json").unlink()
    with pytest.raises(UserError, match="made with other settings"):
        evaluator_of(make_eval_config())


def test_a_task_can_be_added(make_eval_config, tmp_path, store):
    first = predictions_of(evaluator_of(make_eval_config()))
    other = make_eval_config(name="more", data=[str(store)], max_contexts=2)
    evaluator = evaluator_of(other)
    assert len(evaluator.done) == 16
    assert predictions_of(evaluator)[:16] == first
    # And the first task is still known.
    with pytest.raises(UserError, match="task 'towns' changed"):
        evaluator_of(make_eval_config(max_new_tokens=9))


def test_data_that_do_not_fit_are_refused(make_eval_config, tmp_path, validation_store):
    wide = write_store(tmp_path / "wide", town_records(2), "--chunk_size", "50")
    bare = write_store(tmp_path / "bare", [{"context": "No prompt here."}])
    twice = write_store(tmp_path / "twice", [record | {"id": "same"} for record in town_records(1)])
    source = validation_store.with_suffix(".jsonl")
    for data, message in (
        (
            [wide],
            r"tasks\[0\].data=.*chunked with \(size, overlap\) \(50, 0\), and the model was trained with \(40, 0\)",
        ),
        (
            [source],
            rf"preshuffle_data_and_chunk.py --input {source} --output_dir STORE --chunk_size 40 --chunk_overlap 0",
        ),
        ([bare], r"tasks\[0\].data=.*: holds no prompt to answer"),
        ([twice], r"2 examples have the id 'same'; give each its own `id`"),
        ([validation_store, validation_store], r"2 examples have the id 'store.jsonl:\d+'"),
    ):
        with pytest.raises(UserError, match=message):
            evaluator_of(make_eval_config(data=[str(path) for path in data]))
    assert not (tmp_path / "eval").exists()


def test_an_unwritable_folder_is_named(make_eval_config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output_dir='.*file/eval': cannot be written to \(Not a directory\)"):
        evaluator_of(make_eval_config("--output_dir", str(tmp_path / "file/eval")))


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


def test_windows_that_no_context_has_are_reported(make_eval_config, checkpoint, single_chunks, caplog):
    data = ("--reconstruction.data", json.dumps([str(single_chunks)]), "--reconstruction.windows", "[2]")
    model = E2LLM.from_pretrained(checkpoint)
    assert measure_reconstruction(make_eval_config(*data), model) is None
    assert "no context has 2 chunks" in caplog.text
    assert measure_reconstruction(make_eval_config(), model) is None
