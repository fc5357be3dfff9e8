"""Answers by transformers' `generate`: sampling, beams, and decoders whose attention cannot be packed.

Each prompt has its own copy of its beginning's key-value cache (`model.packed_decoding` has none).

Shape suffixes: d decoder width, U different beginnings (prompt prefix and context), R rows (prompts), P and S padded
lengths of what stands before and after the chunk tokens' end, T their sum, N new tokens.
"""

import contextlib
import copy
import time
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel

from model.packed_decoding import DecodedPrompt

if TYPE_CHECKING:
    from model.pro_model import E2LLM


class _FirstTokenClock(LogitsProcessor):
    """Notes when the first token of a batch is about to be chosen."""

    def __init__(self):
        self.first_token_at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.first_token_at = self.first_token_at or time.perf_counter()
        return scores


def generate_copied(
    model: "E2LLM",
    heads: Sequence[torch.Tensor],
    head_of_row: Sequence[int],
    tails: Sequence[torch.Tensor],
    max_new_tokens: int,
    end_ids: Collection[int],
    sampling: dict,
) -> list[DecodedPrompt]:
    """Answer rows by transformers' `generate`, each from a copy of its beginning's key-value cache.

    Beginnings are padded on the left, and what follows is padded between the two. A layer with a sliding window counts
    that padding as a part of its window, and a decoder that counts columns as positions, so there tails of the same
    length are run together.
    """
    head_UPd, head_mask_UP = _pad_left(heads)
    cache = DynamicCache(config=model.causal_lm.config)
    positions_UP = (head_mask_UP.cumsum(1) - 1).clamp(min=0)
    with model.resolved_compute.autocast():
        model.causal_lm.get_decoder()(
            inputs_embeds=head_UPd, attention_mask=head_mask_UP, position_ids=positions_UP, past_key_values=cache
        )
    counts_padding = any(cache.is_sliding) or model.counts_columns
    lengths = [len(tail) for tail in tails] if counts_padding else [0] * len(tails)
    decoded: dict[int, DecodedPrompt] = {}
    for length in sorted(set(lengths)):
        rows = [row for row, own in enumerate(lengths) if own == length]
        select_R = torch.tensor([head_of_row[row] for row in rows], device=model.device)
        own_cache = copy.deepcopy(cache) if len(rows) < len(tails) else cache
        own_cache.batch_select_indices(select_R)
        tail_RSd, tail_mask_RS = _pad_left([tails[row] for row in rows])
        embeddings_RTd = torch.cat([head_UPd[select_R], tail_RSd], dim=1)
        mask_RT = torch.cat([head_mask_UP[select_R], tail_mask_RS], dim=1)
        answers = _generate_rows(model, own_cache, embeddings_RTd, mask_RT, max_new_tokens, end_ids, sampling)
        decoded.update(zip(rows, answers, strict=True))
    return [decoded[row] for row in range(len(tails))]


def _generate_rows(
    model: "E2LLM",
    cache: DynamicCache,
    embeddings_RTd: torch.Tensor,
    mask_RT: torch.Tensor,
    max_new_tokens: int,
    end_ids: Collection[int],
    sampling: dict,
) -> list[DecodedPrompt]:
    """Run transformers' `generate` on rows whose first columns are in the cache."""
    num_beams = sampling.get("num_beams", 1)
    if num_beams > 1:
        # `generate` repeats the embeddings for every beam, but not a cache that it is given.
        cache.batch_repeat_interleave(num_beams)
    clock = _FirstTokenClock()
    options = {"do_sample": False, **sampling}
    if options["do_sample"]:
        options.setdefault("top_k", 0)  # transformers' default is 50
    with model.resolved_compute.autocast(), _blank_generation_config(model.causal_lm):
        tokens_RN = model.causal_lm.generate(
            inputs_embeds=embeddings_RTd,
            attention_mask=mask_RT,
            past_key_values=cache,
            max_new_tokens=max_new_tokens,
            pad_token_id=model.decoder_tokenizer.eos_token_id,  # a pad token of its own may lie beyond the vocabulary
            eos_token_id=sorted(end_ids) or None,
            logits_processor=LogitsProcessorList([clock]),
            **options,
        )
    decoded = []
    for token_ids in tokens_RN.tolist():
        end = next((place for place, token in enumerate(token_ids) if token in end_ids), None)
        decoded.append(DecodedPrompt(token_ids[:end], end is not None, clock.first_token_at))
    return decoded


@contextlib.contextmanager
def _blank_generation_config(causal_lm: PreTrainedModel) -> Iterator[None]:
    """Keep the decoder's own generation config (a penalty, a top_k) out of the answers inside the block."""
    before = causal_lm.generation_config
    causal_lm.generation_config = GenerationConfig()
    try:
        yield
    finally:
        causal_lm.generation_config = before


def _pad_left(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad sequences [length, d] on the left with zeros; returns them [rows, longest, d] and their mask."""
    longest = max(len(sequence) for sequence in sequences)
    padded = sequences[0].new_zeros(len(sequences), longest, sequences[0].shape[-1])
    mask = torch.zeros(len(sequences), longest, dtype=torch.long, device=padded.device)
    for row, sequence in enumerate(sequences):
        padded[row, longest - len(sequence) :] = sequence
        mask[row, longest - len(sequence) :] = 1
    return padded, mask
