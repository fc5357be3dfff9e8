"""Reading contexts and answering prompts with a trained model.

Shape suffixes: n chunks of one context, K chunk tokens a chunk, d decoder width, R prompts, P positions of a beginning
(prompt prefix and context).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.copied_decoding import generate_copied
from model.packed_decoding import DecodedPrompt, PackedDecoder, plan_groups
from utils.chunking import split_into_chunks
from utils.common_utils import UserError
from utils.tokenization import check_template, pad_chunks

if TYPE_CHECKING:
    from model.pro_model import E2LLM

CHUNKS_AT_ONCE = 4096
"""Chunks tokenised at once, so that the memory for a context's text stays bounded."""
MAX_POSITIONS = 16384
"""Decoder positions whose keys and values are held at once, unless one prompt alone takes more."""


@dataclass
class EncodedContext:
    """A context as the decoder reads it; can be used for any number of prompts, and saved."""

    chunk_tokens: torch.Tensor
    """[n, K, d], float32 on the processor's memory."""
    num_characters: int
    """Length of the text it stands for."""
    encoded_by: str = ""
    """The `E2LLM.encoder_fingerprint` of the model that `encode_context` used; empty: not known, and not checked."""

    def save(self, path: str | Path) -> None:
        """Write it, as `encode_context` returned it, to a safetensors file."""
        assert self.encoded_by, "nothing tells which model encoded this context"
        metadata = {"num_characters": str(self.num_characters), "encoded_by": self.encoded_by}
        save_file({"chunk_tokens": self.chunk_tokens}, path, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "EncodedContext":
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing or no such file, or does not say which model encoded it.
        """
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                chunk_tokens, num_characters = file.get_tensor("chunk_tokens"), int(metadata["num_characters"])
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (SafetensorError, KeyError) as error:
            raise UserError(f"{path}: not a saved context ({error})") from None
        if not metadata.get("encoded_by"):
            raise UserError(f"{path}: does not say which checkpoint encoded it, as older files; encode it again")
        return cls(chunk_tokens, num_characters, metadata["encoded_by"])


@dataclass
class GeneratedAnswer:
    """One answer and how it ended."""

    text: str
    num_tokens: int
    """Tokens generated, the end-of-sequence token not counted."""
    finished: bool
    """False when `max_new_tokens` ended it."""
    first_token_seconds: float = 0.0
    """From the call to the first token of the prompts it was answered with."""


@dataclass(frozen=True, eq=False)
class DecoderInput:
    """What the decoder reads for one prompt. Prompts that share a beginning hold the same tensor."""

    head_Pd: torch.Tensor
    """Embeddings up to the end of the context: the prompt's prefix, then chunk tokens or the context's own tokens."""
    tail_ids: tuple[int, ...]
    """Token ids of what follows the context."""

    @property
    def num_positions(self) -> int:
        """Decoder positions before the answer."""
        return len(self.head_Pd) + len(self.tail_ids)


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
    return EncodedContext(encode_chunks(model, chunks)[0], len(text), model.encoder_fingerprint)


@torch.inference_mode()
def generate(
    model: "E2LLM",
    prompts: Sequence[str],
    contexts: EncodedContext | Sequence[EncodedContext],
    *,
    task: str = "default",
    template: str | None = None,
    max_new_tokens: int = 128,
    max_positions: int = MAX_POSITIONS,
    **sampling,
) -> list[GeneratedAnswer]:
    """Answer a batch of prompts.

    Args:
        prompts: R prompts.
        contexts: one context for all prompts, or one for each (the same object where they share one).
        task: chooses the prompt template the model was trained with for this task.
        template: a template of one's own instead, with {context} and {prompt}.
        max_new_tokens: tokens an answer may take.
        max_positions: bound of the memory, see `answer_inputs`.
        sampling: handed to transformers' `generate`: `do_sample`, `temperature`, `top_p`, `num_beams`, ... What is not
            given is off, whatever the decoder's own generation config says.

    Returns:
        R answers, in the order of the prompts.

    Raises:
        UserError: a prompt with its context and answer does not fit the decoder's window, or an argument is not
            possible.
    """
    if isinstance(prompts, str):
        raise UserError(f"prompts={prompts[:60]!r}: a single text; give a list of prompts")
    if max_new_tokens < 1:
        raise UserError(f"max_new_tokens={max_new_tokens}: must be at least 1")
    if sampling.get("num_return_sequences", 1) != 1:
        raise UserError(
            "num_return_sequences: a prompt has one answer; give the prompt as often as it is to be answered"
        )
    if template is not None:
        check_template(template, "template", needs_prompt=True)
    if isinstance(contexts, EncodedContext):
        contexts = [contexts] * len(prompts)
    if len(contexts) != len(prompts):
        raise UserError(
            f"{len(prompts)} prompts and {len(contexts)} contexts: give one context for all, or one for each"
        )
    template = template or model.config.template(task)
    beginnings: dict[tuple, torch.Tensor] = {}
    inputs = []
    for prompt, context in zip(prompts, contexts, strict=True):
        ids = model.formatter.prompt_ids(template, prompt)
        key = (id(context), ids.prefix_ids)
        if key not in beginnings:
            beginnings[key] = chunk_token_head(model, ids.prefix_ids, context)
        inputs.append(DecoderInput(beginnings[key], ids.suffix_ids))
        check_length(inputs[-1], f"prompt {prompt[:60]!r}", max_new_tokens, model.decoder_window)
    return answer_inputs(model, inputs, max_new_tokens=max_new_tokens, max_positions=max_positions, **sampling)


def chunk_token_head(model: "E2LLM", prefix_ids: tuple[int, ...], context: EncodedContext) -> torch.Tensor:
    """Return the embeddings [P, d] of a prompt's prefix followed by the context's chunk tokens.

    Raises:
        UserError: another model encoded the context.
    """
    prefix = token_head(model, prefix_ids)
    adapter = model.chunk_encoder.adapter
    expected = (adapter.num_chunk_tokens, adapter.projection.out_features)
    if tuple(context.chunk_tokens.shape[1:]) != expected:
        raise UserError(
            f"the context was encoded by another model: {tuple(context.chunk_tokens.shape[1:])}, not {expected}"
        )
    if context.encoded_by and context.encoded_by != model.encoder_fingerprint:
        raise UserError(
            f"the context was encoded by another checkpoint or with another chunk size ({context.encoded_by}, not "
            f"{model.encoder_fingerprint}): encode it again"
        )
    chunk_tokens = context.chunk_tokens.flatten(0, 1).to(prefix.device, prefix.dtype)
    return torch.cat([prefix, chunk_tokens])


def token_head(model: "E2LLM", token_ids: Sequence[int]) -> torch.Tensor:
    """Return the decoder's input embeddings [P, d] of tokens."""
    ids = torch.tensor(token_ids, dtype=torch.long, device=model.device)
    return model.decoder.get_input_embeddings()(ids)


def check_length(
    row: DecoderInput,
    name: str,
    max_new_tokens: int,
    window: int,
    way_out: str = "shorten the context or lower max_new_tokens",
) -> None:
    """Check that a prompt with its context and answer fits a window of the decoder.

    Args:
        name, way_out: what the message calls the prompt, and what it says is to be done.

    Raises:
        UserError: it does not.
    """
    length = row.num_positions + max_new_tokens
    if length > window:
        raise UserError(
            f"{name}: with its context and max_new_tokens={max_new_tokens} it takes {length} decoder positions of "
            f"{window}; {way_out}"
        )


@torch.inference_mode()
def answer_inputs(
    model: "E2LLM",
    inputs: Sequence[DecoderInput],
    *,
    max_new_tokens: int,
    max_positions: int = MAX_POSITIONS,
    stop_at_eos: bool = True,
    **sampling,
) -> list[GeneratedAnswer]:
    """Answer prompts whose decoder inputs are given; beginnings that they share go through the decoder once.

    Greedy answers of decoders that allow it are packed (`model.packed_decoding`); everything else goes through
    transformers' `generate`. Either way every prompt's positions count its real tokens alone, so a batch gives the
    same text as one prompt at a time, but for rounding.

    Args:
        inputs: R inputs.
        max_positions: decoder positions whose keys and values are held at once; more prompts than that are answered in
            turn, beginnings of similar length together.
        stop_at_eos: one of `E2LLM.end_token_ids` ends an answer; false, to measure the time of a number of tokens.
        sampling: as for `generate`.

    Returns:
        R answers, in the order of the inputs.
    """
    started = time.perf_counter()
    packed = _is_greedy(sampling) and model.takes_branches
    end_ids = model.end_token_ids if stop_at_eos else frozenset()
    heads, numbers_by_head = _share_heads(inputs)
    tails = [[max(1, len(inputs[number].tail_ids)) for number in numbers] for numbers in numbers_by_head]
    if not packed:
        # Every prompt has its own copy of its beginning there.
        tails = [[len(head) + length for length in of_head] for head, of_head in zip(heads, tails, strict=True)]
    answers: dict[int, GeneratedAnswer] = {}
    decoder = None
    for group in plan_groups([len(head) for head in heads], tails, max_new_tokens, max_positions):
        group_numbers = [numbers_by_head[head][start:end] for head, start, end in group]
        numbers = [number for of_head in group_numbers for number in of_head]
        places = [place for place, of_head in enumerate(group_numbers) for _ in of_head]
        embedded = [_tail(model, inputs[number]) for number in numbers]
        group_heads = [heads[head] for head, _, _ in group]
        if packed:
            if group[0][1] == 0:
                group_tails = [tails[head][start:end] for head, start, end in group]
                decoder = _packed_decoder(model, group_heads, group_tails, max_new_tokens)
            decoded = decoder.answer(list(zip(places, embedded, strict=True)), max_new_tokens, end_ids)
        else:
            decoded = generate_copied(model, group_heads, places, embedded, max_new_tokens, end_ids, sampling)
        for number, prompt in zip(numbers, decoded, strict=True):
            answers[number] = _answer(model, prompt, started)
    return [answers[number] for number in range(len(inputs))]


def _packed_decoder(
    model: "E2LLM", heads: Sequence[torch.Tensor], tail_lengths: Sequence[Sequence[int]], max_new_tokens: int
) -> PackedDecoder:
    # Most answers are far shorter than they may be, so their columns are reserved a part at a time.
    own = [sum(lengths) + len(lengths) * min(16, max_new_tokens) for lengths in tail_lengths]
    return PackedDecoder(
        model, heads, [len(head) + columns for head, columns in zip(heads, own, strict=True)], max(own)
    )


def _is_greedy(sampling: dict) -> bool:
    return not sampling.get("do_sample") and sampling.get("num_beams", 1) == 1 and not sampling.keys() - _GREEDY_KEYS


_GREEDY_KEYS = {"do_sample", "num_beams"}


def _share_heads(inputs: Sequence[DecoderInput]) -> tuple[list[torch.Tensor], list[list[int]]]:
    """Return the different beginnings and, for each, the numbers of the inputs that start with it.

    Where nothing follows the context, its last position belongs to the tail, for the decoder to say what comes next.
    """
    by_head: dict[tuple[int, bool], list[int]] = {}
    for number, row in enumerate(inputs):
        by_head.setdefault((id(row.head_Pd), bool(row.tail_ids)), []).append(number)
    heads = [inputs[numbers[0]].head_Pd for numbers in by_head.values()]
    heads = [head if has_tail else head[:-1] for head, (_, has_tail) in zip(heads, by_head, strict=True)]
    return heads, list(by_head.values())


def _tail(model: "E2LLM", row: DecoderInput) -> torch.Tensor:
    return token_head(model, row.tail_ids) if row.tail_ids else row.head_Pd[-1:]


def _answer(model: "E2LLM", decoded: DecodedPrompt, started: float) -> GeneratedAnswer:
    text = model.decoder_tokenizer.decode(decoded.token_ids, skip_special_tokens=True).strip()
    return GeneratedAnswer(
        text, len(decoded.token_ids), decoded.finished, first_token_seconds=decoded.first_token_at - started
    )
