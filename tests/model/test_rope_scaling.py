"""RoPE scaled by YaRN for a while."""

import copy

import pytest
import torch
from transformers import LlamaForCausalLM

from model.rope_scaling import rope_factor, scaled_rope
from utils.common_utils import UserError


def test_the_factor_is_the_next_power_of_two():
    assert [rope_factor(n, 512) for n in (1, 512, 513, 1024, 1025, 5000)] == [1, 1, 2, 2, 4, 16]


def test_inside_the_block_the_decoder_is_one_built_with_yarn(model):
    decoder = model.causal_lm
    ids = torch.arange(5, 45)[None]
    config = copy.deepcopy(decoder.config)
    config.rope_parameters = {
        "rope_theta": config.rope_parameters["rope_theta"],
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    config.max_position_embeddings = 2048
    state = {name.replace(".base_layer", ""): tensor for name, tensor in decoder.state_dict().items()}
    reference = LlamaForCausalLM(config).eval()
    reference.load_state_dict({name: tensor for name, tensor in state.items() if "lora_" not in name})
    with torch.no_grad(), model.base_weights():
        before = decoder(ids).logits
        with scaled_rope(decoder, 4, 512):
            scaled = decoder(ids).logits
        after = decoder(ids).logits
        with scaled_rope(decoder, 1, 512):
            assert torch.equal(decoder(ids).logits, before)
        torch.testing.assert_close(scaled, reference(ids).logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(scaled, before)
    assert torch.equal(after, before)


def test_another_rope_is_refused(model):
    model.causal_lm.get_decoder().config.rope_parameters["rope_type"] = "llama3"
    with (
        pytest.raises(UserError, match=r"modes: full: .* window of 512, and a llama decoder with RoPE 'llama3'"),
        scaled_rope(model.causal_lm, 2, 512),
    ):
        pass
