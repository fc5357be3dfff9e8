"""The model's loss against a plain computation, and what must not change it."""

import dataclasses

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    Lfm2Config,
    Lfm2ForCausalLM,
)

from dataset.collator import DecoderRow, TokenizedUnit, branch_groups, collate, lay_end_to_end
from model.compute import ComputeConfig
from model.pro_model import E2LLM
from tests.conftest import build_model, corpus, decoder_tokenizer
from utils.common_utils import UserError
from utils.tokenization import PromptIds


def make_units(model, sizes=(1, 3, 2)) -> list[TokenizedUnit]:
    """Units of different numbers of chunks; the second has two prompts on one encoding."""
    texts, units = iter(corpus()), []
    for index, size in enumerate(sizes):
        piece_ids, _ = model.chunk_tokenizer([next(texts) for _ in range(size)])
        rows = []
        for prompt in ["Who?", "Where does Ada live?"][: 1 + (index == 1)]:
            ids = model.formatter.prompt_ids(model.config.template("default"), prompt)
            rows.append(DecoderRow(ids, model.formatter.answer_ids("Oslo since 1950" + " Rome" * index), f"e{index}"))
        units.append(TokenizedUnit(piece_ids, rows))
    return units


def batch_of(model, units, pack=False):
    return collate(units, model.config.num_chunk_tokens, model.encoder_tokenizer.pad_token_id, pack)


def plain_loss(model, unit: TokenizedUnit, row: DecoderRow) -> tuple[float, int]:
    """One row by itself through the decoder's own forward pass with its own loss, nothing padded."""
    tokens = []
    for piece in unit.piece_ids:
        ids = torch.tensor([piece])
        hidden = model.chunk_encoder.backbone(input_ids=ids).last_hidden_state
        tokens.append(model.chunk_encoder.adapter(hidden, torch.ones_like(ids, dtype=torch.bool))[0])
    embed = model.decoder.get_input_embeddings()
    prefix, suffix, answer = (
        torch.tensor(ids) for ids in (row.prompt.prefix_ids, row.prompt.suffix_ids, row.answer_ids)
    )
    inputs = torch.cat([embed(prefix), *tokens, embed(suffix), embed(answer)])[None]
    labels = torch.full(inputs.shape[:2], -100)
    labels[0, -len(answer) :] = answer
    return model.decoder(inputs_embeds=inputs, labels=labels).loss.item() * len(answer), len(answer)


@pytest.mark.parametrize("num_chunk_tokens", [1, 3])
def test_loss_is_that_of_the_plain_decoder(model_config, num_chunk_tokens):
    model = build_model(dataclasses.replace(model_config, num_chunk_tokens=num_chunk_tokens)).eval()
    units = make_units(model)
    with torch.no_grad():
        output = model(batch_of(model, units).tensors)
        expected = [plain_loss(model, unit, row) for unit in units for row in unit.rows]
    assert len(expected) == 4
    assert output.num_tokens == sum(count for _, count in expected)
    assert output.loss_sum.item() == pytest.approx(sum(loss for loss, _ in expected), rel=1e-5)


def test_loss_and_gradient_do_not_depend_on_the_split(model_config):
    results = []
    for split in (3, 1):
        model = build_model(model_config).train()
        units = make_units(model)
        total = sum(batch_of(model, [unit]).num_labels for unit in units)
        loss = 0.0
        for start in range(0, len(units), split):
            output = model(batch_of(model, units[start : start + split]).tensors)
            (output.loss_sum / total).backward()
            loss += output.loss_sum.item() / total
        results.append((loss, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, gradient in results[0][1].items():
        assert gradient is not None and gradient.abs().sum() > 0, f"no gradient reached {name}"
        torch.testing.assert_close(results[1][1][name], gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_prompts_give_the_loss_and_gradient_of_rows_of_their_own(model_config, attention):
    results = []
    for pack in (False, True):
        model = build_model(model_config, attn_implementation=attention).train()
        batch = batch_of(model, make_units(model), pack)
        assert len(batch.tensors["input_ids"]) == (2 if pack else 4)
        output = model(batch.tensors)
        output.loss_sum.backward()
        results.append((output, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    (separate, expected), (packed, gradients) = results
    assert packed.num_tokens == separate.num_tokens and packed.num_correct == separate.num_correct
    assert packed.loss_sum.item() == pytest.approx(separate.loss_sum.item(), rel=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-4, rtol=1e-3)


def test_prompts_are_packed_only_where_they_begin_alike_and_go_on():
    question, first = PromptIds((7,), (8, 9)), PromptIds((8, 9), ())
    rows = [DecoderRow(ids, (5, 2), str(index)) for index, ids in enumerate((question, first, first, question))]
    names = [[row.example_id for row in group] for group in branch_groups(rows, pack=True)]
    assert names == [["0", "3"], ["1"], ["2"]]
    assert len(branch_groups(rows, pack=False)) == 4


def test_sequences_share_rows_where_that_saves_more_padding_than_attention_costs():
    assert lay_end_to_end([20, 30, 20]) == [[1, 0, 2]]
    assert lay_end_to_end([30, 20, 21, 30]) == [[0, 2], [3, 1]]
    assert lay_end_to_end([8000, 7900]) == [[0], [1]]
    assert lay_end_to_end([4000, 1500, 1400, 1000]) == [[0], [1, 2, 3]]
    assert lay_end_to_end([7]) == [[0]]


def test_packed_rows_of_several_sequences_leave_out_padding(model):
    units = make_units(model)[:2]
    apart, packed = (batch_of(model, units, pack) for pack in (False, True))
    assert packed.tensors["attention_mask"].all()
    assert not apart.tensors["attention_mask"].all()
    starts = (packed.tensors["position_ids"] == 0).sum()
    assert starts == len(units)
    assert packed.tensors["position_ids"].max() < apart.tensors["input_ids"].shape[1]


def test_sliding_windows_are_not_packed(model):
    assert model.takes_branches
    model.decoder.config.sliding_window = 16
    assert not model.takes_branches
    model.decoder.config.sliding_window = None


def test_what_a_decoder_has_no_token_for_may_stand_on_padding(model):
    units = make_units(model)
    expected = batch_of(model, units)
    model.decoder_tokenizer.add_special_tokens({"pad_token": "<padding>"})
    assert model.decoder_tokenizer.pad_token_id >= model.decoder.get_input_embeddings().num_embeddings
    assert not batch_of(model, units).tensors["attention_mask"].all()
    with torch.no_grad():
        assert torch.equal(model(batch_of(model, units).tensors).loss_sum, model(expected.tensors).loss_sum)


def save_decoder(causal_lm, folder) -> str:
    """Write a decoder and the tests' tokenizer; returns the folder."""
    causal_lm.save_pretrained(folder)
    decoder_tokenizer().save_pretrained(folder)
    return str(folder)


def test_decoders_with_a_running_state_are_refused(model_config, tmp_path):
    sizes = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2}
    layers = {"layer_types": ["conv", "full_attention"], "num_attention_heads": 4, "num_key_value_heads": 2}
    decoder = save_decoder(Lfm2ForCausalLM(Lfm2Config(**sizes, **layers)), tmp_path / "lfm2")
    with pytest.raises(UserError, match=r"decoder='.*/lfm2': a lfm2 model has layers that keep something .*\(Linear"):
        build_model(dataclasses.replace(model_config, decoder=decoder))


def test_chunk_tokens_have_the_spread_of_what_a_decoder_reads_that_scales_its_embeddings(model_config, tmp_path):
    sizes = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    causal_lm = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, **heads))
    model = build_model(dataclasses.replace(model_config, decoder=save_decoder(causal_lm, tmp_path / "gemma")))
    stored = causal_lm.get_input_embeddings().weight.std().item()
    assert model.chunk_encoder.adapter.output_scale == pytest.approx(8 * stored, rel=0.01)


def test_order_of_contexts_changes_nothing(model):
    units = make_units(model)
    with torch.no_grad():
        forward = model(batch_of(model, units).tensors)
        backward = model(batch_of(model, units[::-1]).tensors)
    assert forward.loss_sum.item() == pytest.approx(backward.loss_sum.item(), rel=1e-5)


def test_shuffled_chunk_tokens_change_the_loss(model):
    batch = batch_of(model, make_units(model)).tensors
    with torch.no_grad():
        true, shuffled = model(batch), model(batch, shuffle_chunk_tokens=True)
    assert true.loss_sum.item() != pytest.approx(shuffled.loss_sum.item(), rel=1e-4)
    assert true.num_tokens == shuffled.num_tokens


def test_only_lora_and_adapter_are_trained(model):
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("lora_" in name or "chunk_encoder.adapter" in name), name


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_rank_zero_freezes_a_side(model_config, side):
    model = build_model(dataclasses.replace(model_config, **{f"{side}_lora_rank": 0}))
    part = model.chunk_encoder.backbone if side == "encoder" else model.decoder
    assert not any(parameter.requires_grad for parameter in part.parameters())
    assert any("lora_" in name for name, _ in model.named_parameters())


def test_bfloat16_is_close_to_float32_and_keeps_trained_weights_in_float32(model_config):
    losses = []
    for dtype, attention in (("float32", "sdpa"), ("bfloat16", "eager")):
        model = build_model(model_config, dtype=dtype, attn_implementation=attention).eval()
        assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
        with torch.no_grad():
            output = model(batch_of(model, make_units(model)).tensors)
        losses.append(output.loss_sum.item() / output.num_tokens)
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


TOY = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(**TOY, head_dim=8, final_logit_softcapping=0.5),
        CohereConfig(**TOY, logit_scale=0.3),
        GraniteConfig(**TOY, logits_scaling=4.0),
    ],
    ids=lambda config: config.model_type,
)
def test_logits_follow_the_architecture(model, config):
    torch.manual_seed(0)
    decoder = AutoModelForCausalLM.from_config(config).eval()
    model.decoder = decoder
    ids = torch.arange(12)[None]
    with torch.no_grad():
        hidden = decoder.get_decoder()(input_ids=ids).last_hidden_state
        torch.testing.assert_close(model.head(hidden[0]), decoder(input_ids=ids).logits[0])


def test_unknown_lora_layers_are_named(model_config):
    model_config.decoder_lora_targets = ["q_prj"]
    with pytest.raises(UserError, match=r"model.decoder_lora_targets=\['q_prj'\].*q_proj"):
        E2LLM.from_backbones(model_config, ComputeConfig(dtype="float32"))


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_limits_above_a_window_are_named(model, model_config, side):
    window = getattr(model, f"native_{side}_window")
    allowed = build_model(dataclasses.replace(model_config, **{f"{side}_max_tokens": window}))
    assert getattr(allowed, f"{side}_window") == window
    with pytest.raises(UserError, match=rf"model.{side}_max_tokens={window + 1}: the {side} was made for {window};"):
        build_model(dataclasses.replace(model_config, **{f"{side}_max_tokens": window + 1}))


def test_missing_backbones_are_named(model_config):
    for reference, message in (
        ("/no/such/folder", r"model.encoder='/no/such/folder': no such file or folder"),
        ("package:no_such_package/model", "no_such_package' is not installed"),
        ("package:torch/no_such_folder", "the package 'torch' has no 'no_such_folder'"),
    ):
        with pytest.raises(UserError, match=message):
            E2LLM.from_backbones(dataclasses.replace(model_config, encoder=reference), ComputeConfig(dtype="float32"))
