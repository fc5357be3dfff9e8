"""Answering: batches, shared contexts and saved contexts give what one prompt at a time gives."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from transformers import GenerationConfig

from model.generation import EncodedContext, generate
from model.pro_model import E2LLM
from tests.conftest import build_model, corpus
from utils.common_utils import UserError

PROMPTS = ["Who lives in Rome?", "Since when?", "Where does Ada live now?", "Who?"]


@pytest.fixture(scope="module")
def contexts_text() -> list[str]:
    """Contexts of zero to nine chunks."""
    return ["", corpus()[0], "\n".join(corpus()[1:4]), "\n".join(corpus()[4:13])]


def reference_answer(model, prompt: str, context: EncodedContext, max_new_tokens: int) -> list[int]:
    """Greedy decoding of one prompt, the whole input again for every token, no cache and no padding."""
    ids = model.formatter.prompt_ids(model.config.template("default"), prompt)
    embed = model.decoder.get_input_embeddings()
    inputs = torch.cat(
        [embed(torch.tensor(ids.prefix_ids)), context.chunk_tokens.flatten(0, 1), embed(torch.tensor(ids.suffix_ids))]
    )
    tokens = []
    for _ in range(max_new_tokens):
        token = model.decoder(inputs_embeds=inputs[None], use_cache=False).logits[0, -1].argmax()
        if token.item() == model.decoder_tokenizer.eos_token_id:
            break
        tokens.append(token.item())
        inputs = torch.cat([inputs, embed(token[None])])
    return tokens


def test_a_batch_gives_what_the_plain_decoder_gives(model, contexts_text):
    contexts = [model.encode_context(text) for text in contexts_text]
    assert [len(context.chunk_tokens) for context in contexts][0] == 0
    assert len({len(context.chunk_tokens) for context in contexts}) == 4
    answers = generate(model, PROMPTS, contexts, max_new_tokens=12)
    with torch.no_grad():
        for answer, prompt, context in zip(answers, PROMPTS, contexts, strict=True):
            expected = reference_answer(model, prompt, context, 12)
            assert answer.text == model.decoder_tokenizer.decode(expected, skip_special_tokens=True).strip()
            assert answer.num_tokens == len(expected)
            assert answer.finished == (len(expected) < 12)
    assert len({answer.text for answer in answers}) == 4, "all answers alike: nothing was told apart"


def test_many_prompts_on_one_context_share_its_encoding(model, contexts_text):
    context = model.encode_context(contexts_text[3])
    together = model.generate(PROMPTS, context, max_new_tokens=8)
    alone = [model.generate([prompt], context, max_new_tokens=8)[0] for prompt in PROMPTS]
    assert together == alone


def test_a_prompt_before_the_context_works_too(model, contexts_text):
    template = "{prompt} Look it up: {context} Answer:"
    contexts = [model.encode_context(text) for text in contexts_text[1:3]]
    pairs = [(prompt, context) for prompt in PROMPTS for context in contexts]
    together = model.generate([p for p, _ in pairs], [c for _, c in pairs], template=template, max_new_tokens=6)
    alone = [model.generate([p], c, template=template, max_new_tokens=6)[0] for p, c in pairs]
    assert together == alone


@pytest.mark.parametrize("use_chat_template", [True, False])
def test_a_prompt_never_begins_with_a_chunk_token(model_config, use_chat_template):
    model = build_model(dataclasses.replace(model_config, use_chat_template=use_chat_template))
    ids = model.formatter.prompt_ids("{context} {prompt}", "Who?")
    assert ids.prefix_ids[0] == model.decoder_tokenizer.bos_token_id
    assert model.decoder_tokenizer.decode(ids.suffix_ids).startswith(" Who?")


def test_a_prompt_cannot_pose_as_a_template(model):
    ids = model.formatter.prompt_ids("{context} {prompt}", "literal {context} and {prompt}")
    assert "literal {context} and {prompt}" in model.decoder_tokenizer.decode(ids.suffix_ids)


def test_contexts_are_saved_and_loaded(model, contexts_text, tmp_path):
    context = model.encode_context(contexts_text[2])
    context.save(tmp_path / "context.safetensors")
    loaded = EncodedContext.load(tmp_path / "context.safetensors")
    assert loaded.num_characters == len(contexts_text[2])
    assert torch.equal(loaded.chunk_tokens, context.chunk_tokens)
    assert model.generate(PROMPTS, loaded, max_new_tokens=5) == model.generate(PROMPTS, context, max_new_tokens=5)
    (tmp_path / "broken.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match=r"broken.safetensors: not a saved context"):
        EncodedContext.load(tmp_path / "broken.safetensors")
    with pytest.raises(UserError, match="missing.safetensors: no such file"):
        EncodedContext.load(tmp_path / "missing.safetensors")


def test_a_context_of_another_checkpoint_is_refused(model, model_config, contexts_text, tmp_path):
    model.encode_context(contexts_text[2]).save(tmp_path / "context.safetensors")
    context = EncodedContext.load(tmp_path / "context.safetensors")
    same = build_model(model_config).eval()
    assert same.generate(["Who?"], context, max_new_tokens=3) == model.generate(["Who?"], context, max_new_tokens=3)
    with pytest.raises(UserError, match=r"encoded by another checkpoint or with another chunk size .*encode it again"):
        build_model(model_config, seed=1).generate(["Who?"], context)
    with pytest.raises(UserError, match="with another chunk size"):
        build_model(dataclasses.replace(model_config, chunk_size=41)).generate(["Who?"], context)
    before = model.encoder_fingerprint
    model.fold_lora()
    assert model.encoder_fingerprint == before, "folding changes no checkpoint"
    with torch.no_grad():
        model.chunk_encoder.adapter.projection.weight[0, 0] += 1
    assert model.encoder_fingerprint != before
    save_file({"chunk_tokens": context.chunk_tokens}, tmp_path / "old.safetensors", {"num_characters": "9"})
    with pytest.raises(UserError, match="old.safetensors: does not say which checkpoint encoded it.*encode it again"):
        EncodedContext.load(tmp_path / "old.safetensors")


def test_sampling_is_seeded_and_differs_from_greedy(model, contexts_text):
    context = model.encode_context(contexts_text[1])
    options = {"max_new_tokens": 12, "do_sample": True, "temperature": 2.0, "top_p": 0.9}
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(model.generate(PROMPTS, context, **options))
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("num_beams", [2, 3])
def test_beam_search_gives_what_plain_generate_gives(model, contexts_text, num_beams):
    contexts = [model.encode_context(text) for text in contexts_text]
    prompts = [prompt for prompt in PROMPTS for _ in contexts]
    answers = generate(model, prompts, contexts * len(PROMPTS), max_new_tokens=8, num_beams=num_beams)
    greedy = generate(model, prompts, contexts * len(PROMPTS), max_new_tokens=8)
    assert [answer.text for answer in answers] != [answer.text for answer in greedy]
    for answer, prompt, context in zip(answers, prompts, contexts * len(PROMPTS), strict=True):
        ids = model.formatter.prompt_ids(model.config.template("default"), prompt)
        embed = model.decoder.get_input_embeddings()
        inputs = [embed(torch.tensor(ids.prefix_ids)), context.chunk_tokens.flatten(0, 1)]
        inputs = torch.cat([*inputs, embed(torch.tensor(ids.suffix_ids))])
        (expected,) = model.causal_lm.generate(
            inputs_embeds=inputs[None],
            attention_mask=torch.ones(1, len(inputs), dtype=torch.long),
            num_beams=num_beams,
            max_new_tokens=8,
        )
        assert answer.text == model.decoder_tokenizer.decode(expected, skip_special_tokens=True).strip()


def test_the_decoders_own_generation_config_changes_no_answer(model, contexts_text, monkeypatch):
    context = model.encode_context(contexts_text[1])
    packed = model.generate(PROMPTS, context, max_new_tokens=12)
    own = GenerationConfig(repetition_penalty=50.0, top_k=1, do_sample=True, temperature=9.0)
    model.causal_lm.generation_config = own
    monkeypatch.setattr(E2LLM, "takes_branches", False)
    assert model.generate(PROMPTS, context, max_new_tokens=12) == packed
    assert model.causal_lm.generation_config is own
    # The default top_k of transformers would leave 50 tokens to draw from, the decoder's own a single one.
    drawn = model.generate(["Who?"] * 300, context, max_new_tokens=1, do_sample=True, temperature=1e4)
    assert len(set(drawn)) > 60


@pytest.mark.parametrize("packs", [True, False])
def test_the_generation_configs_end_tokens_end_an_answer_too(model, contexts_text, monkeypatch, packs):
    monkeypatch.setattr(E2LLM, "takes_branches", packs)
    context = model.encode_context(contexts_text[1])
    tokenizer = model.decoder_tokenizer
    tokens = reference_answer(model, PROMPTS[0], context, 12)
    end = next(place for place, token in enumerate(tokens) if place and token not in tokens[:place])
    model.causal_lm.generation_config.eos_token_id = [tokenizer.eos_token_id, tokens[end]]
    (answer,) = generate(model, PROMPTS[:1], context, max_new_tokens=12)
    assert (answer.num_tokens, answer.finished) == (end, True)
    assert answer.text == tokenizer.decode(tokens[:end], skip_special_tokens=True).strip()


def test_what_does_not_fit_is_refused(model, contexts_text):
    context = model.encode_context(contexts_text[1])
    with pytest.raises(UserError, match=r"prompt 'Who\?': .* takes \d+ decoder positions of 512"):
        model.generate(["Who?"], context, max_new_tokens=600)
    with pytest.raises(UserError, match="2 prompts and 3 contexts"):
        model.generate(["a", "b"], [context] * 3)
    for options, message in (
        ({"prompts": "Who?"}, r"prompts='Who\?': a single text; give a list"),
        ({"max_new_tokens": 0}, "max_new_tokens=0: must be at least 1"),
        ({"template": "Read {context}."}, "template: the template holds {prompt} 0 times"),
        ({"template": "Answer {prompt}."}, "template: the template holds {context} 0 times"),
        ({"do_sample": True, "num_return_sequences": 2}, "num_return_sequences: a prompt has one answer"),
    ):
        with pytest.raises(UserError, match=message):
            model.generate(**{"prompts": ["Who?"], "contexts": context} | options)
    foreign = EncodedContext(torch.zeros(2, 1, 7), 10)
    with pytest.raises(UserError, match="encoded by another model"):
        model.generate(["Who?"], foreign)
