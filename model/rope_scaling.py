"""Contexts beyond a decoder's window: its RoPE scaled by YaRN (arXiv 2309.00071) for a while, through Hugging Face."""

import contextlib
import copy
from collections.abc import Iterator

from transformers import PreTrainedModel

from utils.common_utils import UserError


def rope_factor(num_positions: int, window: int) -> int:
    """Return the factor by which RoPE has to be scaled for a number of positions: 1 or the next power of two, so that
    contexts of similar length are read alike."""
    factor = 1
    while factor * window < num_positions:
        factor *= 2
    return factor


def check_scalable(decoder: PreTrainedModel, window: int) -> None:
    """Check that a decoder (a causal LM) has RoPE of the plain kind, which YaRN scales.

    Raises:
        UserError: it has not.
    """
    body = decoder.get_decoder()
    kind = (getattr(body.config, "rope_parameters", None) or {}).get("rope_type")
    if getattr(body, "rotary_emb", None) is None or kind != "default":
        raise UserError(
            f"modes: full: a context exceeds the decoder's window of {window}, and a {body.config.model_type} decoder "
            f"with RoPE {kind!r} cannot be scaled by YaRN; leave `full` out of the modes of this task (tasks: modes)"
        )


@contextlib.contextmanager
def scaled_rope(decoder: PreTrainedModel, factor: int, window: int) -> Iterator[None]:
    """Run a decoder (a causal LM) with its RoPE scaled by YaRN inside the block; factor 1 leaves it as it is.

    Raises:
        UserError: the decoder has no RoPE of the plain kind, which YaRN scales.
    """
    if factor == 1:
        yield
        return
    check_scalable(decoder, window)
    body = decoder.get_decoder()
    plain = body.rotary_emb
    config = copy.deepcopy(body.config)
    config.rope_parameters = {
        **body.config.rope_parameters,
        "rope_type": "yarn",
        "factor": float(factor),
        "original_max_position_embeddings": window,
    }
    config.max_position_embeddings = window * factor
    body.rotary_emb = type(plain)(config=config).to(plain.inv_freq.device)
    try:
        yield
    finally:
        body.rotary_emb = plain
