"""Packed decoding: what shares a row, a group and a cache, and that none of it shows in the answers."""

import dataclasses

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    FalconConfig,
    GPTNeoConfig,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
)

from model import generation
from model.generation import DecoderInput, answer_inputs, token_head
from model.packed_decoding import PackedDecoder, ReservedLayer, fill_rows, plan_groups
from model.pro_model import E2LLM
from tests.conftest import build_model, decoder_tokenizer
from utils.common_utils import UserError


def make_inputs(model, sizes: list[list[int]]) -> list[DecoderInput]:
    """Inputs of random tokens: for each beginning its length, then the lengths of the tails on it."""
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> list[int]:
        return torch.randint(5, 300, (count,), generator=generator).tolist()

    inputs = []
    for head_length, *tail_lengths in sizes:
        head = token_head(model, draw(head_length))
        inputs += [DecoderInput(head, tuple(draw(length))) for length in tail_lengths]
    return inputs


def texts(model, inputs: list[DecoderInput], **options) -> list[tuple]:
    answers = answer_inputs(model, inputs, max_new_tokens=10, **options)
    return [(answer.text, answer.num_tokens, answer.finished) for answer in answers]


SIZES = [[30, 5, 1, 9], [3, 4], [90, 7, 7], [1, 2, 2, 2], [12, 3], [60, 1], [45, 0, 0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("max_positions", [1, 60, 200, 100_000])
def test_a_batch_gives_what_single_prompts_give(model_config, max_positions, attention):
    model = build_model(model_config, attn_implementation=attention).eval()
    inputs = make_inputs(model, SIZES)
    alone = [texts(model, [row])[0] for row in inputs]
    assert len({text for text, _, _ in alone}) > 6
    assert texts(model, inputs, max_positions=max_positions) == alone


def test_packed_and_copied_caches_give_the_same(model, monkeypatch):
    inputs = make_inputs(model, [row for row in SIZES if 0 not in row])
    assert model.takes_branches
    packed = texts(model, inputs)
    monkeypatch.setattr(E2LLM, "takes_branches", False)
    assert texts(model, inputs) == packed
    assert texts(model, inputs, max_positions=100) == packed


def test_decoders_with_windows_or_other_kernels_are_not_packed(model):
    assert model.takes_branches
    config = model.causal_lm.config
    config.layer_types = ["full_attention", "sliding_attention"]
    config.sliding_window = 8
    assert not model.takes_branches
    del config.layer_types, config.sliding_window
    assert model.takes_branches
    model.resolved_compute = dataclasses.replace(model.resolved_compute, attn_implementation="flash_attention_2")
    assert not model.takes_branches


SMALL = {"vocab_size": 300, "hidden_size": 32}
COUNT_COLUMNS = [
    FalconConfig(**SMALL, num_hidden_layers=2, num_attention_heads=4, alibi=True),
    GPTNeoConfig(**SMALL, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=8),
    MptConfig(vocab_size=300, d_model=32, n_layers=2, n_heads=4, expansion_ratio=2),
]


@pytest.mark.parametrize("decoder", COUNT_COLUMNS, ids=lambda decoder: decoder.model_type)
def test_decoders_that_count_columns_answer_a_batch_as_single_prompts(model_config, tmp_path, decoder):
    torch.manual_seed(0)
    causal_lm = AutoModelForCausalLM.from_config(decoder, attn_implementation="eager")
    for parameter in causal_lm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    causal_lm.save_pretrained(tmp_path / "decoder")
    decoder_tokenizer().save_pretrained(tmp_path / "decoder")
    config = dataclasses.replace(model_config, decoder=str(tmp_path / "decoder"), decoder_lora_rank=0)
    if decoder.model_type == "mpt":
        with pytest.raises(UserError, match=r"does not support .*; set compute.attn_implementation=eager$"):
            build_model(config, attn_implementation="sdpa")
    model = build_model(config, attn_implementation="eager").eval()
    assert not model.takes_branches
    inputs = make_inputs(model, SIZES)
    alone = [texts(model, [row])[0] for row in inputs]
    assert len({text for text, _, _ in alone}) > 3
    assert texts(model, inputs) == alone


def test_with_a_sliding_window_a_batch_gives_what_single_prompts_give(model_config, tmp_path):
    torch.manual_seed(0)
    decoder = AutoConfig.from_pretrained(model_config.decoder).to_dict()
    sizes = {key: decoder[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size")}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(**sizes, **heads, max_position_embeddings=512, sliding_window=8, initializer_range=0.1)
    MistralForCausalLM(config).save_pretrained(tmp_path / "mistral")
    decoder_tokenizer().save_pretrained(tmp_path / "mistral")
    model_config.decoder = str(tmp_path / "mistral")
    model = build_model(model_config).eval()
    assert not model.takes_branches
    inputs = make_inputs(model, SIZES)
    alone = [texts(model, [row])[0] for row in inputs]
    assert len({text for text, _, _ in alone}) > 6
    assert texts(model, inputs) == alone


def test_many_prompts_on_one_beginning_stay_within_the_bound(model, monkeypatch):
    decoders = []

    class Noted(PackedDecoder):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            decoders.append(self)

    monkeypatch.setattr(generation, "PackedDecoder", Noted)
    answer_inputs(model, make_inputs(model, [[50] + [20] * 40]), max_new_tokens=10, max_positions=200)
    assert decoders, "nothing was packed"
    assert max(layer.key_room.shape[2] for decoder in decoders for layer in decoder.layers) <= 200


def test_ended_prompts_are_not_fed_and_a_beginning_is_fed_once(model, monkeypatch):
    fed = []
    feed = PackedDecoder._feed

    def counting(self, streams):
        fed.append((sum(len(stream.feed_qd) for stream in streams), len(self.rows)))
        return feed(self, streams)

    monkeypatch.setattr(PackedDecoder, "_feed", counting)
    inputs = make_inputs(model, [[40, 5, 5, 5], [300, 6]])
    # The token that ends is one that some prompts say at once and others later or never.
    free = [answer.text for answer in answer_inputs(model, inputs, max_new_tokens=8, stop_at_eos=False)]
    fed.clear()
    first = model.decoder_tokenizer(free[0], add_special_tokens=False)["input_ids"][0]
    decoder = PackedDecoder(model, [inputs[0].head_Pd, inputs[3].head_Pd], [60, 310], 32)
    assert fed[0] == (340, 2), "each beginning takes a row"
    tails = [(row // 3, token_head(model, inputs[row].tail_ids)) for row in range(4)]
    decoded = decoder.answer(tails, 8, {first})
    assert fed[1] == (21, 2)
    lengths = [len(prompt.token_ids) for prompt in decoded]
    for step, (count, _) in enumerate(fed[2:], start=1):
        assert count == sum(length >= step for length in lengths)


@pytest.mark.parametrize("packs", [True, False])
def test_eos_ends_an_answer_unless_told_otherwise(model, monkeypatch, packs):
    inputs = make_inputs(model, [[20, 5], [6, 3]])
    decoder = PackedDecoder(model, [inputs[0].head_Pd], [40], 16)
    (decoded,) = decoder.answer([(0, token_head(model, inputs[0].tail_ids))], 1, ())
    model.decoder_tokenizer.eos_token = model.decoder_tokenizer.convert_ids_to_tokens(decoded.token_ids[0])
    monkeypatch.setattr(E2LLM, "takes_branches", packs)
    (ended,) = answer_inputs(model, inputs[:1], max_new_tokens=5)
    assert (ended.num_tokens, ended.finished) == (0, True)
    answers = answer_inputs(model, inputs, max_new_tokens=5, stop_at_eos=False)
    assert [(answer.num_tokens, answer.finished) for answer in answers] == [(5, False)] * 2


def test_time_to_first_token_is_part_of_the_whole(model):
    (answer,) = answer_inputs(model, make_inputs(model, [[20, 5]]), max_new_tokens=5)
    assert 0 < answer.first_token_seconds < 5


def test_a_reserved_layer_holds_what_it_was_given():
    layer, kept = ReservedLayer(spare=3), []
    generator = torch.Generator().manual_seed(0)
    for count in (5, 1, 1, 1, 70, 2):
        keys = torch.randn(2, 3, count, 4, generator=generator)
        kept.append(keys)
        got_keys, got_values = layer.update(keys, -keys)
        expected = torch.cat(kept, dim=2)
        assert torch.equal(got_keys, expected)
        assert torch.equal(got_values, -expected)
        assert layer.get_seq_length() == expected.shape[2]
    layer.keep(6, torch.tensor([1]))
    got, _ = layer.update(torch.ones(1, 3, 1, 4), torch.ones(1, 3, 1, 4))
    assert torch.equal(got[:, :, :6], expected[1:, :, :6])
    assert got.shape[2] == 7


def test_rows_are_filled_without_overflow():
    sizes = [100, 3, 250, 90, 60, 10, 300]
    rows = fill_rows(sizes, 256)
    totals = [sum(size for size, row in zip(sizes, rows, strict=True) if row == number) for number in set(rows)]
    assert max(totals) <= 300
    assert len(totals) == 3
    assert fill_rows([1] * 10, 256) == [0] * 10


def test_groups_stay_within_their_bound_and_take_everything_once():
    heads = [10, 500, 20, 5000, 30, 10]
    tails = [[5, 5], [5] * 30, [8], [5, 5], [1] * 100, [4]]
    groups = plan_groups(heads, tails, max_new_tokens=10, max_positions=1000)
    seen = sorted((head, number) for group in groups for head, start, end in group for number in range(start, end))
    assert seen == [(head, number) for head in range(6) for number in range(len(tails[head]))]
    for group in groups:
        total = sum(heads[head] + sum(tails[head][start:end]) + 10 * (end - start) for head, start, end in group)
        assert total <= 1000 or (len(group) == 1 and group[0][2] - group[0][1] == 1)
    parts = [group for group in groups if group[0][0] == 4]
    assert len(parts) == 2, "cut where it exceeds the bound"
    assert sorted(head for head, _, _ in groups[0]) == [0, 2, 5]
