"""The pretrained encoder and decoder, loaded by transformers; `utils.pretrained` finds them."""

import copy

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from model.config import E2LLMConfig
from utils.pretrained import load_pretrained, load_tokenizer

__all__ = ["load_config", "load_decoder", "load_encoder", "load_tokenizer"]


def load_config(config: E2LLMConfig, side: str) -> PretrainedConfig:
    """Load the configuration of the backbone of a side, `encoder` or `decoder`, without its weights."""
    return load_pretrained(
        AutoConfig, getattr(config, side), f"model.{side}", trust_remote_code=config.trust_remote_code
    )


def load_encoder(
    reference: str, *, dtype: torch.dtype, attn_implementation: str, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load a text encoder without its pooling head, which nothing here uses."""
    options = {"dtype": dtype, "attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code}
    config = load_pretrained(AutoConfig, reference, "model.encoder", trust_remote_code=trust_remote_code)
    if config.model_type in {"bert", "roberta", "xlm-roberta"}:
        options["add_pooling_layer"] = False
    return _with_own_buffers(load_pretrained(AutoModel, reference, "model.encoder", **options))


def load_decoder(
    reference: str, *, dtype: torch.dtype, attn_implementation: str, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load a decoder-only language model."""
    options = {"dtype": dtype, "attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code}
    return _with_own_buffers(load_pretrained(AutoModelForCausalLM, reference, "model.decoder", **options))


@torch.no_grad()
def _with_own_buffers(model: PreTrainedModel) -> PreTrainedModel:
    """Give a model of code that came with it the buffers that its code computes and no checkpoint holds.

    Transformers 5 builds models without memory and fills them from the checkpoint; of other buffers (rotary
    frequencies, numbers of positions) it knows those of its own models alone, and leaves in the others whatever the
    memory holds.
    """
    if type(model).__module__.partition(".")[0] == "transformers_modules":
        with init_empty_weights(include_buffers=False):
            computed = type(model)(copy.deepcopy(model.config))
        saved = model.state_dict().keys()
        buffers = dict(model.named_buffers())
        for name, buffer in computed.named_buffers():
            if name in buffers and name not in saved and not buffer.is_meta:
                buffers[name].copy_(buffer)
    return model
