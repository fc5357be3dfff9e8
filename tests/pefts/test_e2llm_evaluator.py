"""Predictions that depend on the settings alone, whatever was interrupted or batched."""

import json

import pytest
import torch

from dataset.store import ChunkStore
from model.checkpoint import save_model, write_manifest
from model.compute import ComputeConfig
from model.pro_model import E2LLM
from pefts import e2llm_evaluator, eval_contexts
from pefts.e2llm_evaluator import Evaluator
from tests.conftest import build_model
from tests.pefts.conftest import by_id, evaluator_of, fresh, predictions_of, town_records, write_store
from utils.common_utils import UserError

SAMPLING = ("--sampling.do_sample", "true", "--sampling.temperature", "2.0")


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


def test_an_unwritable_folder_is_named(make_eval_config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"output_dir='.*file/eval': cannot be written to \(Not a directory\)"):
        evaluator_of(make_eval_config("--output_dir", str(tmp_path / "file/eval")))


def test_timed_prompts_are_measured_and_answered_the_same(make_eval_config, tmp_path):
    modes = ("--modes", '["model", "full"]')
    untimed = make_eval_config(*modes, "--timed_prompts", "0", "--output_dir", str(tmp_path / "untimed"))
    expected = {(record["mode"], record["id"]): record for record in predictions_of(evaluator_of(untimed))}
    records = predictions_of(evaluator_of(make_eval_config(*modes, "--timed_prompts", "1")))
    timed = [record for record in records if "timing" in record]
    # Contexts of 1, 2, 3 and 4 chunks fall into three powers of two, in two modes.
    assert sorted((record["mode"], record["num_chunks"].bit_length()) for record in timed) == [
        (mode, power) for mode in ("full", "model") for power in (1, 2, 3)
    ]
    for record in records:
        timing = record.pop("timing", None)
        assert record == expected[record["mode"], record["id"]]
        if timing:
            assert 0 < timing["first_token_seconds"] <= timing["seconds"]
            assert timing["peak_bytes"] is None or timing["peak_bytes"] >= 0


def test_no_clock_runs_while_the_encoder_gets_ready(make_eval_config, monkeypatch):
    events = []

    def noting(name, function):
        def noted(*arguments, **options):
            events.append(name)
            return function(*arguments, **options)

        return noted

    monkeypatch.setattr(e2llm_evaluator, "encode_chunks", noting("encode", e2llm_evaluator.encode_chunks))
    monkeypatch.setattr(e2llm_evaluator, "embed_texts", noting("embed", e2llm_evaluator.embed_texts))
    monkeypatch.setattr(e2llm_evaluator, "ResourceMeter", noting("clock", e2llm_evaluator.ResourceMeter))
    modes = ["model", "retrieval_to_window"]
    predictions_of(evaluator_of(make_eval_config("--modes", json.dumps(modes), "--timed_prompts", "1")))
    assert events == ["embed", *["clock"] * 3, "encode", *["clock"] * 3]


def test_folding_lora_changes_no_answer(make_eval_config, tmp_path):
    answers = []
    for fold in ("true", "false"):
        evaluator = evaluator_of(make_eval_config("--fold_lora", fold, "--output_dir", str(tmp_path / fold)))
        answers.append([record["prediction"] for record in predictions_of(evaluator)])
        assert (evaluator.model.config.decoder_lora_rank == 0) == (fold == "true")
    assert answers[0] == answers[1]


@pytest.mark.parametrize("modes", [["model", "full"], ["full", "model"]])
def test_baselines_run_the_weights_without_lora_whatever_the_order(make_eval_config, model_config, modes):
    """What the same backbones say without LoRA, token by token."""
    evaluator = evaluator_of(make_eval_config("--modes", json.dumps(modes)))
    records = [record for record in predictions_of(evaluator) if record["mode"] == "full"]
    assert len(records) == 16
    model = E2LLM.from_backbones(model_config, ComputeConfig(dtype="float32")).eval()
    store = evaluator.plan.stores["towns"]
    contexts = {store.example(n).id: store.context_text(store.example(n).context_index) for n in range(16)}
    for record in records[::5]:
        context = contexts[record["id"]]
        parts = ("<s>user: ", context, f"\n{record['prompt']}</s><s>assistant: ")
        ids = [
            token for part in parts for token in model.decoder_tokenizer(part, add_special_tokens=False)["input_ids"]
        ]
        with torch.no_grad():
            for _ in range(6):
                ids.append(int(model.causal_lm(torch.tensor([ids])).logits[0, -1].argmax()))
        new_ids = ids[-6:]
        eos_id = model.decoder_tokenizer.eos_token_id
        new_ids = new_ids[: new_ids.index(eos_id)] if eos_id in new_ids else new_ids
        assert record["prediction"] == model.decoder_tokenizer.decode(new_ids, skip_special_tokens=True).strip()
        assert record["decoder_positions"] == len(ids) - 6
        assert record["context_positions"] == record["context_tokens"]


@pytest.mark.parametrize("first, second", [(1, 3), (3, 2), (2, 1)])
def test_processes_share_the_work_and_another_number_goes_on(make_eval_config, tmp_path, first, second):
    arguments = ("--batch_size", "4", "--modes", '["model", "full"]', "--timed_prompts", "0")
    expected = predictions_of(evaluator_of(make_eval_config(*arguments, "--output_dir", str(tmp_path / "alone"))))
    config = make_eval_config(*arguments)

    def processes(count: int) -> list[Evaluator]:
        return [Evaluator(config, E2LLM.from_pretrained(config.checkpoint), index, count) for index in range(count)]

    for evaluator in processes(first):
        evaluator.run()
        evaluator.files.unlock()
    for path in evaluator.files.existing():
        cut_file(path, 0.6)
    shares = processes(second)
    for evaluator in shares:
        assert 0 < len(evaluator.done) < len(expected)
        evaluator.run()
    shares[0].finish()
    assert [path.name for path in shares[0].files.existing()] == ["predictions.jsonl"]
    records = [json.loads(line) for line in shares[0].files.path.read_text(encoding="utf-8").split("\n") if line]
    assert len(records) == len(expected)
    key = lambda record: (record["mode"], record["id"])  # noqa: E731
    assert sorted(records, key=key) == sorted(expected, key=key)


def test_a_process_without_work_does_nothing(make_eval_config):
    config = make_eval_config("--batch_size", "100", max_contexts=1)
    evaluators = [Evaluator(config, E2LLM.from_pretrained(config.checkpoint), index, 2) for index in range(2)]
    evaluators[1].model = None
    for evaluator in evaluators:
        evaluator.run()
    assert not evaluators[1].files.own_path.exists()
    evaluators[0].finish()
    assert len(evaluators[0].files.answered()) == 2


def test_the_same_question_in_another_mode_is_not_computed_again(make_eval_config, monkeypatch):
    asked = []
    answer_inputs = e2llm_evaluator.answer_inputs

    def counting(model, inputs, **options):
        asked.append(len(inputs))
        return answer_inputs(model, inputs, **options)

    monkeypatch.setattr(e2llm_evaluator, "answer_inputs", counting)
    modes = ["truncate_head", "full", "retrieval_to_window", "base_closed_book"]
    config = make_eval_config("--modes", json.dumps(modes), "--timed_prompts", "0")
    records = predictions_of(evaluator_of(config))
    assert sum(asked) < 2 * 16 + 1, "once with the context, and at most once without"
    by_mode = [[r["prediction"] for r in records if r["mode"] == mode] for mode in modes]
    assert by_mode[0] == by_mode[1] == by_mode[2] != by_mode[3]
    assert {(r["mode"], r["id"]) for r in records} == {(mode, r["id"]) for mode in modes for r in records}
