"""The pretrained encoder and decoder, loaded by transformers; `utils.pretrained` finds them."""

import copy

import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from model.config import E2LLMConfig
from utils.common_utils import UserError
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
    return _load(AutoModel, reference, "model.encoder", options)


def load_decoder(
    reference: str, *, dtype: torch.dtype, attn_implementation: str, trust_remote_code: bool = False
) -> PreTrainedModel:
    """Load a decoder-only language model."""
    options = {"dtype": dtype, "attn_implementation": attn_implementation, "trust_remote_code": trust_remote_code}
    return _load(AutoModelForCausalLM, reference, "model.decoder", options)


@torch.no_grad()
def _load(auto_class: type, reference: str, key: str, options: dict) -> PreTrainedModel:
    """Load a model; where code that came with it computes buffers that the checkpoint does not hold, they are computed.

    Transformers 5 builds models without memory and fills them from the checkpoint; of other buffers (rotary
    frequencies, numbers of positions) it knows those of its own models alone, and leaves in the others whatever the
    memory holds.

    Raises:
        UserError: the model cannot be loaded, or such a buffer has another shape than its code computes.
    """
    model, loading = load_pretrained(auto_class, reference, key, output_loading_info=True, **options)
    if type(model).__module__.partition(".")[0] != "transformers_modules":
        return model
    with init_empty_weights(include_buffers=False):
        computed = type(model)(copy.deepcopy(model.config))
    loaded = model.state_dict().keys() - loading["missing_keys"]
    buffers = dict(model.named_buffers())
    for name, buffer in computed.named_buffers():
        if name in buffers and name not in loaded and not buffer.is_meta:
            if buffer.shape != buffers[name].shape:
                raise UserError(
                    f"{key}={reference!r}: its buffer {name} has the shape {list(buffers[name].shape)}, and its code "
                    f"makes {list(buffer.shape)} of the saved config; this code does not work with transformers 5"
                )
            buffers[name].copy_(buffer)
    return model
