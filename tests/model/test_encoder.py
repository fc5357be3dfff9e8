"""The chunk encoder: micro-batches, order, padding and recomputation change nothing."""

import dataclasses

import pytest
import torch
from transformers import AutoTokenizer, CamembertConfig, CamembertModel

from model.checkpoint import model_tensors
from model.encoder_model_bert import plan_micro_batches
from tests.conftest import build_model, corpus
from utils.common_utils import UserError
from utils.tokenization import ChunkTokenizer, pad_chunks


def encoded_chunks(model, count: int = 11):
    """Token ids and mask of chunks of different lengths."""
    texts = [" ".join(corpus()[: 1 + index % 3]) for index in range(count)]
    piece_ids, pieces = model.chunk_tokenizer(texts)
    assert pieces == [1] * count
    assert len({len(ids) for ids in piece_ids}) > 2
    return pad_chunks(piece_ids, model.encoder_tokenizer.pad_token_id)


def test_micro_batches_stay_within_the_budget_and_hold_every_chunk_once():
    lengths = torch.tensor([5, 90, 7, 7, 30, 1, 64, 12])
    groups = list(plan_micro_batches(lengths, 64))
    assert sorted(torch.cat(groups).tolist()) == list(range(8))
    for group in groups:
        assert len(group) * lengths[group].max() <= 64 or len(group) == 1
    assert len(groups) < 8


def test_budget_order_and_padding_change_nothing(model):
    ids, mask = encoded_chunks(model)
    with torch.no_grad():
        expected = model.chunk_encoder(ids, mask)
        assert expected.shape == (11, 1, 48)
        for budget in (1, 40, 100):
            model.chunk_encoder.token_budget = budget
            torch.testing.assert_close(model.chunk_encoder(ids, mask), expected, atol=1e-6, rtol=1e-5)
        order = torch.randperm(11)
        torch.testing.assert_close(model.chunk_encoder(ids[order], mask[order]), expected[order], atol=1e-6, rtol=1e-5)
        wider = torch.nn.functional.pad(ids, (0, 7)), torch.nn.functional.pad(mask, (0, 7))
        torch.testing.assert_close(model.chunk_encoder(*wider), expected, atol=1e-6, rtol=1e-5)
    assert expected.std(dim=0).max() > 1e-3, "all chunks encode to the same vector, so order could not matter"


def test_no_chunks_encode_to_nothing(model):
    empty = torch.zeros(0, 1, dtype=torch.long)
    assert model.chunk_encoder(empty, empty).shape == (0, 1, 48)


def test_recomputation_gives_the_same_gradients(model_config):
    gradients = []
    for recompute in (False, True):
        model = build_model(model_config, recompute_chunks=recompute, encoder_token_budget=40).train()
        ids, mask = encoded_chunks(model)
        torch.manual_seed(3)
        weights = torch.randn(11, 1, 48)
        (model.chunk_encoder(ids, mask) * weights).sum().backward()
        gradients.append({n: p.grad for n, p in model.chunk_encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("lora_A" in name for name in gradients[0]) and "adapter.seeds" in gradients[0]
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-5)


def test_an_overlong_chunk_is_split_not_cut(model):
    tokenizer = model.encoder_tokenizer
    text = " ".join(corpus()[:4])
    content = tokenizer(text, add_special_tokens=False)["input_ids"]
    piece_ids, pieces = ChunkTokenizer(tokenizer, 12)([text, "Ada"])
    assert pieces == [-(-len(content) // 10), 1]
    joined = [token for ids in piece_ids[:-1] for token in ids[1:-1]]
    assert joined == content
    assert all(len(ids) <= 12 and ids[0] == tokenizer.cls_token_id for ids in piece_ids)


@pytest.mark.parametrize("adapter", ["first_token_mlp", "mean_mlp"])
def test_other_adapters_train(model_config, adapter):
    model_config.adapter = adapter
    model = build_model(model_config).train()
    ids, mask = encoded_chunks(model)
    model.chunk_encoder(ids, mask).square().sum().backward()
    for name, parameter in model.chunk_encoder.adapter.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, f"no gradient reached {name}"


def test_layers_stand_side_by_side(model_config):
    model_config.encoder_layers = [0, -1, 1]
    model_config.adapter_feed_forward = 20
    model = build_model(model_config).eval()
    ids, mask = encoded_chunks(model, 3)
    seen = {}

    def spy(hidden, chunk_mask):
        seen["hidden"], seen["mask"] = hidden, chunk_mask
        return hidden.sum(1, keepdim=True)

    model.chunk_encoder.collect(ids, mask, spy)
    order = mask.sum(1).argsort(descending=True, stable=True)
    with torch.no_grad():
        states = model.chunk_encoder.backbone(
            input_ids=ids[order], attention_mask=mask[order], output_hidden_states=True
        ).hidden_states
    assert len(states) == 3
    torch.testing.assert_close(seen["hidden"], torch.cat([states[0], states[2], states[1]], dim=-1))
    assert torch.equal(seen["mask"], mask[order].bool())
    assert model.chunk_encoder(ids, mask).shape == (3, 1, 48)


@pytest.mark.parametrize(("layers", "num_read"), [([0, 1], 1), ([0], 0), ([-1], 2), ([-2, 2], 2)])
def test_only_layers_that_are_read_are_trained(model_config, layers, num_read):
    model = build_model(dataclasses.replace(model_config, encoder_layers=layers))
    encoder = model.chunk_encoder
    named = [(name, weight) for name, weight in encoder.backbone.named_parameters() if "lora_" in name]
    expected = {name for name, _ in named if int(name.partition(".layer.")[2].partition(".")[0]) < num_read}
    assert len(expected) * 2 == len(named) * num_read
    assert {name for name, weight in named if weight.requires_grad} == expected
    encoder(*encoded_chunks(model)).sum().backward()
    assert {name for name, weight in named if weight.grad is not None} == expected
    saved, usual = (model_tensors(each)["encoder_lora"] for each in (model, build_model(model_config)))
    assert saved.keys() == usual.keys(), "a checkpoint holds all of them"


def test_a_pooling_head_is_not_trained(model_config, tmp_path):
    """Of the encoders that have one, not all can be loaded without."""
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
    config = CamembertConfig(vocab_size=300, max_position_embeddings=70, pad_token_id=0, **sizes)
    CamembertModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(model_config.encoder).save_pretrained(tmp_path)
    encoder = (model := build_model(dataclasses.replace(model_config, encoder=str(tmp_path)))).chunk_encoder
    named = {name: weight for name, weight in encoder.backbone.named_parameters() if "lora_" in name}
    pooling = {name for name in named if "pooler" in name}
    assert pooling
    assert {name for name, weight in named.items() if weight.requires_grad} == named.keys() - pooling
    encoder(*encoded_chunks(model)).sum().backward()
    assert {name for name, weight in named.items() if weight.grad is not None} == named.keys() - pooling


def test_layers_the_encoder_does_not_have_are_named(model_config):
    for layers, message in (([3], "has 2 layers"), ([-4], "has 2 layers")):
        with pytest.raises(UserError, match=message):
            build_model(dataclasses.replace(model_config, encoder_layers=layers))
    with pytest.raises(UserError, match="encoder_layers=\\[\\]"):
        dataclasses.replace(model_config, encoder_layers=[])


def test_further_micro_batches_change_nothing(model_config):
    """As where processes must call the encoder equally often: two of these micro-batches are for nothing."""
    model = build_model(model_config, encoder_token_budget=16).eval()
    ids = torch.randint(4, 100, (5, 8), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([8, 3, 5, 2, 7])
    mask = (torch.arange(8) < lengths[:, None]).long()
    calls = []
    model.chunk_encoder.backbone.register_forward_hook(lambda *_: calls.append(1))
    outcomes = []
    for agree in (None, lambda count: count + 2):
        calls.clear()
        model.zero_grad()
        model.chunk_encoder.agree_on_micro_batches = agree
        chunk_tokens = model.chunk_encoder(ids, mask)
        chunk_tokens.pow(2).sum().backward()
        gradients = [
            parameter.grad.clone() for parameter in model.chunk_encoder.parameters() if parameter.requires_grad
        ]
        outcomes.append((len(calls), chunk_tokens.detach(), gradients))
    (few, expected, one), (many, found, other) = outcomes
    assert many == few + 2
    assert torch.equal(found, expected)
    assert len(one) == len(other) > 0
    for gradient, again in zip(one, other, strict=True):
        assert torch.allclose(gradient, again, rtol=1e-6)
