"""The fused LoRA pass agrees with PEFT's."""

import dataclasses

import pytest
import torch

from model.lora import fuse_lora
from tests.conftest import build_model
from tests.model.test_pro_model import batch_of, make_units


def gradients(model) -> tuple[float, dict[str, torch.Tensor]]:
    output = model(batch_of(model, make_units(model)).tensors)
    (output.loss_sum / output.num_tokens).backward()
    return output.loss_sum.item(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def test_same_loss_and_gradients_as_peft(model_config):
    plain, fused = (build_model(model_config, fused_lora=fused).train() for fused in (False, True))
    assert fuse_lora(fused) == 2 * 6 + 2 * 7
    loss, expected = gradients(plain)
    fused_loss, found = gradients(fused)
    assert fused_loss == pytest.approx(loss, rel=1e-6)
    assert expected.keys() == found.keys()
    assert any("encoder" in name and "lora_A" in name for name in expected)
    for name, gradient in expected.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(found[name], gradient, atol=1e-7, rtol=1e-4)


def test_bfloat16_gradients_point_the_same_way(model_config):
    options = {"dtype": "bfloat16", "attn_implementation": "eager"}
    exact = gradients(build_model(model_config, fused_lora=False).train())[1]
    angles = []
    for fused in (False, True):
        found = gradients(build_model(model_config, fused_lora=fused, **options).train())[1]
        flat = [torch.cat([grads[name].flatten() for name in exact]) for grads in (exact, found)]
        angles.append(torch.nn.functional.cosine_similarity(*flat, dim=0).item())
    assert angles[0] > 0.99
    assert angles[1] > 0.99


def test_dropout_keeps_pefts_own_pass(model_config):
    model = build_model(dataclasses.replace(model_config, lora_dropout=0.1))
    assert fuse_lora(model) == 0


def test_disabled_adapters_leave_the_backbone(model_config):
    model = build_model(model_config).eval()
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        with_lora = model.decoder(input_ids=ids).logits
        with model.decoder.disable_adapter():
            without = model.decoder(input_ids=ids).logits
        merged = model.decoder.merge_and_unload()(input_ids=ids).logits
    torch.testing.assert_close(merged, with_lora, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(without, with_lora, atol=1e-3)
