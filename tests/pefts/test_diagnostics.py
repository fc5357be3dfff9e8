"""How the model reads: tokens, attention and evidence, against plain forward passes of the decoder."""

import json

import numpy as np
import pytest
import torch

from dataset.store import ChunkStore
from model.generation import encode_chunks
from pefts.diagnostics import answer_attention, attend_to_chunks, evidence_chunks, restate_chunks
from pefts.e2llm_evaluator import Evaluator
from tests.pefts.conftest import town_records, write_store
from utils.common_utils import UserError


def evidence_records(count: int = 12) -> list[dict]:
    """Documents of one to four sentences, asked about their second last line."""
    records = []
    for record in town_records(count):
        lines = record["context"].split("\n")
        line = max(0, len(lines) - 2)
        answer = lines[line].split(" ")[3]
        records.append(record | {"answer": answer, "meta": {"evidence": [line]}})
    return records


@pytest.fixture
def evidence_store(tmp_path):
    return write_store(tmp_path / "evidence", evidence_records())


def test_chunks_are_restated_token_by_token(make_eval_config, model, validation_store):
    config = make_eval_config(
        "--reconstruction.data", json.dumps([str(validation_store)]), "--diagnostics.recovery_chunks", "7",
        "--batch_size", "3",
    )  # fmt: skip
    chunks = restate_chunks(config, model)
    assert len(chunks) == 7
    for chunk in chunks:
        answer_ids = model.formatter.answer_ids(chunk["text"])
        for name in ("token_spans", "losses", "correct", "losses_shuffled", "correct_shuffled"):
            assert len(chunk[name]) == len(answer_ids)
        pieces = [chunk["text"][start:end] for start, end in chunk["token_spans"]]
        assert "".join(pieces) == chunk["text"]
    chunk = chunks[4]
    expected = losses_alone(model, chunk["text"])
    assert chunk["losses"] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert chunk["losses_shuffled"] != pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert restate_chunks(make_eval_config(), model) == []


def prompt_embeddings(model, text_chunks, template, prompt=""):
    ids = model.formatter.prompt_ids(template, prompt)
    embed = model.decoder.get_input_embeddings()
    prefix, suffix = (embed(torch.tensor(part)) for part in (ids.prefix_ids, ids.suffix_ids))
    return torch.cat([prefix, encode_chunks(model, text_chunks)[0].flatten(0, 1), suffix]), len(ids.prefix_ids)


@torch.no_grad()
def losses_alone(model, text: str) -> list[float]:
    head, _ = prompt_embeddings(model, [text], model.config.templates["understanding"])
    answer_ids = torch.tensor(model.formatter.answer_ids(text))
    inputs = torch.cat([head, model.decoder.get_input_embeddings()(answer_ids)])
    logits = model.causal_lm(inputs_embeds=inputs[None]).logits[0, len(head) - 1 : -1]
    return torch.nn.functional.cross_entropy(logits, answer_ids, reduction="none").tolist()


def test_evidence_lines_become_chunks(tmp_path):
    context = "Ada lives in Rome by the old river now.\nBela lives in Oslo with many friends, and Cora too.\nDino left."
    records = [
        {"context": context, "prompt": "Who?", "answer": "x", "id": str(line), "meta": {"evidence": [line]}}
        for line in (0, 1, 2, 3)
    ]
    store = ChunkStore.open(write_store(tmp_path / "lines", records))
    chunks = store.context_chunks(0)
    assert [chunk.split(" ")[0] for chunk in chunks] == ["Ada", "Bela", "and"]
    by_id = {store.example(index).id: store.example(index) for index in range(4)}
    held = {line: evidence_chunks(store, by_id[str(line)]) for line in (0, 1, 2)}
    assert held == {0: (0,), 1: (1, 2), 2: (2,)}
    with pytest.raises(UserError, match=r"^3: meta.evidence names line 3, and its context has 3"):
        evidence_chunks(store, by_id["3"])


@torch.no_grad()
def test_attention_is_that_of_a_plain_forward_pass(model, evidence_store):
    store = ChunkStore.open(evidence_store)
    example = next(e for e in map(store.example, range(store.num_examples)) if store.num_chunks[e.context_index] == 4)
    template = model.config.template(example.task)
    found = answer_attention(model, store, example, (2,), template)
    assert model.causal_lm.config._attn_implementation == "sdpa"

    head, first_slot = prompt_embeddings(model, store.context_chunks(example.context_index), template, example.prompt)
    answer_ids = model.formatter.answer_ids(example.answers[0])[:-1]
    inputs = torch.cat([head, model.decoder.get_input_embeddings()(torch.tensor(answer_ids))])
    model.causal_lm.set_attn_implementation("eager")
    output = model.causal_lm(inputs_embeds=inputs[None], output_attentions=True)
    predicting = slice(len(head) - 1, len(head) - 1 + len(answer_ids))
    expected = torch.cat(output.attentions)[:, :, predicting, first_slot : first_slot + 4].mean(2)
    np.testing.assert_allclose(found["attention_LAC"], expected.numpy(), atol=1e-5)
    assert found["right"] == (output.logits[0, predicting].argmax(-1).tolist() == list(answer_ids))
    assert (expected.sum(-1) > 0.01).all(), "nothing attends to the chunks"


def test_prompts_are_chosen_by_evidence_and_length(make_eval_config, model, evidence_store, caplog):
    def answers(*arguments: str, **task):
        config = make_eval_config(*arguments, **{"data": [str(evidence_store)]} | task)
        return attend_to_chunks(Evaluator(config, model))["towns"]

    # 24 prompts on documents of one to four chunks; where there is one chunk only, there is nothing to choose from.
    some = answers("--diagnostics.attention_prompts", "99")
    assert len(some) == 18
    assert {answer["attention_LAC"].shape[2] for answer in some} == {2, 3, 4}
    assert all(answer["evidence"] == (answer["attention_LAC"].shape[2] - 2,) for answer in some)
    short = ("--diagnostics.attention_prompts", "5", "--diagnostics.attention_max_chunks", "2")
    assert [answer["attention_LAC"].shape[2] for answer in answers(*short)] == [2] * 5


def test_tasks_without_evidence_say_so(make_eval_config, model, caplog):
    config = make_eval_config("--diagnostics.attention_prompts", "5")
    reason = "no prompt with an answer says in meta.evidence which lines answer it"
    assert attend_to_chunks(Evaluator(config, model)) == {"towns": reason}
    assert f"diagnostics.attention_prompts: task 'towns': {reason}" in caplog.text
    assert attend_to_chunks(Evaluator(make_eval_config(), model)) == {}


def test_prompts_whose_answers_are_withheld_are_left_out(make_eval_config, model, tmp_path):
    kept = ("context", "prompt", "meta")
    records = [{key: record[key] for key in kept} | {"answer": []} for record in evidence_records()]
    store = write_store(tmp_path / "withheld", records, "--unlabelled")
    config = make_eval_config("--diagnostics.attention_prompts", "5", data=[str(store)])
    assert attend_to_chunks(Evaluator(config, model))["towns"].startswith("no prompt with an answer says")


def test_options_are_checked(make_eval_config):
    with pytest.raises(UserError, match=r"diagnostics.recovery_chunks=5: is measured on reconstruction.data"):
        make_eval_config("--diagnostics.recovery_chunks", "5")
    with pytest.raises(UserError, match=r"diagnostics.recovery_chunks=1: must be 0 or at least 2"):
        make_eval_config("--diagnostics.recovery_chunks", "1")
