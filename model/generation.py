"""Reading contexts and answering prompts with a trained model.

Shape suffixes: n chunks of one context, K chunk tokens a chunk, d decoder width, U different beginnings (prompt prefix
and context), R rows (prompts), P and S padded lengths of what stands before and after the chunk tokens' end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import DynamicCache

from utils.chunking import split_into_chunks
from utils.common_utils import UserError
from utils.tokenization import pad_chunks

if TYPE_CHECKING:
    from model.pro_model import E2LLM

CHUNKS_AT_ONCE = 4096
"""Chunks tokenised at once, so that the memory for a context's text stays bounded."""


@dataclass
class EncodedContext:
    """A context as the decoder reads it; can be used for any number of prompts, and saved."""

    chunk_tokens: torch.Tensor
    """[n, K, d], float32 on the processor's memory."""
    num_characters: int
    """Length of the text it stands for."""

    def save(self, path: str | Path) -> None:
        """Write it to a safetensors file."""
        save_file({"chunk_tokens": self.chunk_tokens}, path, {"num_characters": str(self.num_characters)})

    @classmethod
    def load(cls, path: str | Path) -> "EncodedContext":
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or no such file.
        """
        try:
            with safe_open(path, "pt") as file:
                return cls(file.get_tensor("chunk_tokens"), int((file.metadata() or {})["num_characters"]))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (SafetensorError, KeyError) as error:
            raise UserError(f"{path}: not a saved context ({error})") from None


@dataclass
class GeneratedAnswer:
    """One answer and how it ended."""

    text: str
    num_tokens: int
    """Tokens generated, the end-of-sequence token not counted."""
    finished: bool
    """False when `max_new_tokens` ended it."""


@torch.inference_mode()
def encode_chunks(model: "E2LLM", chunks: Sequence[str]) -> tuple[torch.Tensor, list[int]]:
    """Encode chunks, a bounded number at a time.

    Returns:
        Chunk tokens [pieces, K, d] in float32 on the processor's memory, and of how many pieces each chunk is made (1
        unless it was longer than the encoder's window).
    """
    adapter = model.chunk_encoder.adapter
    parts, pieces = [torch.zeros(0, adapter.num_chunk_tokens, adapter.projection.out_features)], []
    for start in range(0, len(chunks), CHUNKS_AT_ONCE):
        piece_ids, counts = model.chunk_tokenizer(chunks[start : start + CHUNKS_AT_ONCE])
        ids, mask = pad_chunks(piece_ids, model.encoder_tokenizer.pad_token_id)
        with model.resolved_compute.autocast():
            parts.append(model.chunk_encoder(ids.to(model.device), mask.to(model.device)).float().cpu())
        pieces += counts
    return torch.cat(parts), pieces


def encode_context(model: "E2LLM", text: str) -> EncodedContext:
    """Chunk a text as in training and encode it; an empty text gives a context of no chunks."""
    chunks = split_into_chunks(text, model.config.chunk_size, model.config.chunk_overlap) if text else []
    return EncodedContext(encode_chunks(model, chunks)[0], len(text))


@torch.inference_mode()
def generate(
    model: "E2LLM",
    prompts: Sequence[str],
    contexts: EncodedContext | Sequence[EncodedContext],
    *,
    task: str = "default",
    template: str | None = None,
    max_new_tokens: int = 128,
    **sampling,
) -> list[GeneratedAnswer]:
    """Answer a batch of prompts.

    Everything up to the end of the chunk tokens goes through the decoder once for each different beginning; the rows
    that share it start from copies of its key-value cache. Beginnings are padded on the left, what follows is padded
    between the two, and every row's positions count its real tokens alone.

    Args:
        prompts: R prompts.
        contexts: one context for all prompts, or one for each (the same object where they share one).
        task: chooses the prompt template the model was trained with for this task.
        template: a template of one's own instead, with {context} and {prompt}.
        max_new_tokens: tokens an answer may take.
        sampling: handed to transformers' `generate`: `do_sample`, `temperature`, `top_p`, `num_beams`, ...

    Returns:
        R answers, in the order of the prompts.

    Raises:
        UserError: a prompt with its context and answer does not fit the decoder's window.
    """
    if not prompts:
        return []
    if isinstance(contexts, EncodedContext):
        contexts = [contexts] * len(prompts)
    if len(contexts) != len(prompts):
        raise UserError(
            f"{len(prompts)} prompts and {len(contexts)} contexts: give one context for all, or one for each"
        )
    template = template or model.config.template(task)
    rows = [model.formatter.prompt_ids(template, prompt) for prompt in prompts]
    beginnings: dict[tuple, int] = {}
    beginning_of_row = [
        beginnings.setdefault((id(context), row.prefix_ids), len(beginnings))
        for row, context in zip(rows, contexts, strict=True)
    ]
    first_rows = [beginning_of_row.index(index) for index in range(len(beginnings))]
    heads = [_beginning(model, rows[row].prefix_ids, contexts[row]) for row in first_rows]
    embedding = model.decoder.get_input_embeddings()
    tails = [embedding(torch.tensor(row.suffix_ids, device=model.device)) for row in rows]
    _check_length(model, prompts, heads, tails, beginning_of_row, max_new_tokens)

    head_UPd, head_mask_UP = _pad_left(heads)
    tail_RSd, tail_mask_RS = _pad_left(tails)
    with model.resolved_compute.autocast():
        cache = DynamicCache(config=model.decoder.config)
        positions_UP = (head_mask_UP.cumsum(1) - 1).clamp(min=0)
        model.decoder.get_decoder()(
            inputs_embeds=head_UPd, attention_mask=head_mask_UP, position_ids=positions_UP, past_key_values=cache
        )
        select_R = torch.tensor(beginning_of_row, device=model.device)
        cache.batch_select_indices(select_R)
        tokens_RN = model.decoder.generate(
            inputs_embeds=torch.cat([head_UPd[select_R], tail_RSd], dim=1),
            attention_mask=torch.cat([head_mask_UP[select_R], tail_mask_RS], dim=1),
            past_key_values=cache,
            max_new_tokens=max_new_tokens,
            pad_token_id=model.decoder_tokenizer.pad_token_id,
            eos_token_id=model.decoder_tokenizer.eos_token_id,
            **{"do_sample": False, **sampling},
        )
    return [_answer(model, tokens.tolist()) for tokens in tokens_RN]


def _beginning(model: "E2LLM", prefix_ids: tuple[int, ...], context: EncodedContext) -> torch.Tensor:
    """Return the embeddings [P, d] of the prompt's prefix followed by the context's chunk tokens."""
    embedding = model.decoder.get_input_embeddings()
    prefix = embedding(torch.tensor(prefix_ids, dtype=torch.long, device=model.device))
    adapter = model.chunk_encoder.adapter
    expected = (adapter.num_chunk_tokens, adapter.projection.out_features)
    if tuple(context.chunk_tokens.shape[1:]) != expected:
        raise UserError(
            f"the context was encoded by another model: {tuple(context.chunk_tokens.shape[1:])}, not {expected}"
        )
    chunk_tokens = context.chunk_tokens.flatten(0, 1).to(prefix.device, prefix.dtype)
    return torch.cat([prefix, chunk_tokens])


def _pad_left(sequences: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad sequences [length, d] on the left with zeros; returns them [rows, longest, d] and their mask."""
    longest = max(len(sequence) for sequence in sequences)
    padded = sequences[0].new_zeros(len(sequences), longest, sequences[0].shape[-1])
    mask = torch.zeros(len(sequences), longest, dtype=torch.long, device=padded.device)
    for row, sequence in enumerate(sequences):
        padded[row, longest - len(sequence) :] = sequence
        mask[row, longest - len(sequence) :] = 1
    return padded, mask


def _check_length(
    model: "E2LLM",
    prompts: Sequence[str],
    heads: Sequence[torch.Tensor],
    tails: Sequence[torch.Tensor],
    beginning_of_row: Sequence[int],
    max_new_tokens: int,
) -> None:
    for prompt, tail, beginning in zip(prompts, tails, beginning_of_row, strict=True):
        length = len(heads[beginning]) + len(tail) + max_new_tokens
        if length > model.decoder_window:
            raise UserError(
                f"prompt {prompt[:60]!r}: with its context's chunk tokens and max_new_tokens={max_new_tokens} it takes "
                f"{length} decoder positions of {model.decoder_window}; shorten the context or lower max_new_tokens"
            )


def _answer(model: "E2LLM", token_ids: list[int]) -> GeneratedAnswer:
    eos_id = model.decoder_tokenizer.eos_token_id
    finished = eos_id in token_ids
    if finished:
        token_ids = token_ids[: token_ids.index(eos_id)]
    text = model.decoder_tokenizer.decode(token_ids, skip_special_tokens=True).strip()
    return GeneratedAnswer(text, len(token_ids), finished)
