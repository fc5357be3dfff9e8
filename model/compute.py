"""How the model is computed, as opposed to what it is: number formats, attention kernels, memory."""

import logging
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from utils.common_utils import UserError

logger = logging.getLogger(__name__)

Attention = Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
DTypeName = Literal["auto", "float32", "bfloat16"]


@dataclass
class ComputeConfig:
    """Options that change speed and memory, and results only within rounding. They are no part of a checkpoint."""

    dtype: DTypeName = "auto"
    """Number format of the frozen weights and of the products; LoRA, adapter and optimizer stay in float32.
    `auto`: bfloat16 on a GPU or processor with fast bfloat16 products, else float32."""
    attn_implementation: Attention = "auto"
    """Attention kernel handed to transformers. `auto`: sdpa, but eager to train in bfloat16 on a processor, where the
    backward pass of sdpa is slow for rows below some 500 positions; for longer ones name sdpa."""
    fused_lora: bool = True
    """Compute LoRA in fewer operations than PEFT does; the same result but for rounding."""
    encoder_token_budget: int = 16384
    """Encoder tokens (padding included) put through the encoder at once. Lower it when memory runs out."""
    recompute_chunks: bool = False
    """Run the encoder's forward pass again in the backward pass, one micro-batch of chunks at a time: memory stops
    growing with the number of chunks, for about a third more work in the encoder."""
    decoder_checkpointing: bool = False
    """Recompute the decoder's layers in the backward pass: less memory, about a third more work in the decoder."""

    def __post_init__(self):
        if self.encoder_token_budget < 1:
            raise UserError(f"compute.encoder_token_budget={self.encoder_token_budget}: must be at least 1")

    def resolve(self, device: torch.device, for_training: bool = True) -> "ResolvedCompute":
        """Decide what `auto` means on a device, and log it."""
        fast_bfloat16 = has_fast_bfloat16(device)
        if self.dtype == "auto":
            dtype = torch.bfloat16 if fast_bfloat16 else torch.float32
        else:
            dtype = getattr(torch, self.dtype)
        attention = self.attn_implementation
        if attention == "auto":
            needs_eager = for_training and device.type == "cpu" and dtype == torch.bfloat16
            attention = "eager" if needs_eager else "sdpa"
        logger.info(
            "compute: device %s (fast bfloat16: %s), dtype %s%s, attention %s%s",
            device.type,
            "yes" if fast_bfloat16 else "no",
            str(dtype).removeprefix("torch."),
            " (auto)" if self.dtype == "auto" else "",
            attention,
            " (auto)" if self.attn_implementation == "auto" else "",
        )
        return ResolvedCompute(device, dtype, attention)


@dataclass(frozen=True)
class ResolvedCompute:
    """The decisions of `ComputeConfig.resolve`."""

    device: torch.device
    dtype: torch.dtype
    attn_implementation: str

    def autocast(self) -> AbstractContextManager:
        """Return the context in which the model runs: autocast for bfloat16, nothing for float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def has_fast_bfloat16(device: torch.device) -> bool:
    """Tell whether bfloat16 products are faster than float32 ones on this device."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return False


def default_device() -> torch.device:
    """Return the first GPU, or the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
