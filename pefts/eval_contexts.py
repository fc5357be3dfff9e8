"""A context of an evaluation task and what the modes need of it, each made when it is first asked for."""

import functools
from collections.abc import Sequence

import torch

from dataset.store import ChunkStore, Example
from model.generation import EncodedContext, encode_chunks
from model.pro_model import E2LLM
from model.retrieval import embed_texts


class EvalContext:
    """A context with its prompts.

    Args:
        examples: all prompts on it, answered already or not.
        timed: its first prompt is answered alone, with the clock running.
    """

    def __init__(self, model: E2LLM, store: ChunkStore, index: int, examples: Sequence[Example], timed: bool = False):
        self.model = model
        self.store = store
        self.index = index
        self.examples = examples
        self.timed = timed

    @functools.cached_property
    def chunks(self) -> list[str]:
        """Its chunks, as the store has them."""
        return self.store.context_chunks(self.index)

    @functools.cached_property
    def token_ids(self) -> list[int]:
        """Decoder tokens of its text."""
        text = self.store.context_text(self.index)
        # Not verbose: that it exceeds the decoder's window is no news here.
        return self.model.decoder_tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]

    @functools.cached_property
    def chunk_token_ids(self) -> list[list[int]]:
        """Decoder tokens of each chunk."""
        return self.model.decoder_tokenizer(self.chunks, add_special_tokens=False)["input_ids"]

    @functools.cached_property
    def chunk_vectors(self) -> torch.Tensor:
        """Sentence vectors of its chunks [n, h], of length 1."""
        return embed_texts(self.model, self.chunks)

    @functools.cached_property
    def num_slots(self) -> int:
        """Decoder positions that its chunk tokens take."""
        return sum(self.model.chunk_tokenizer(self.chunks)[1]) * self.model.config.num_chunk_tokens

    @functools.cached_property
    def encoded(self) -> EncodedContext:
        """Its chunk tokens; `encode_together` makes those of several contexts at once."""
        return EncodedContext(encode_chunks(self.model, self.chunks)[0], len(self.store.context_text(self.index)))

    def forget(self) -> None:
        """Forget what was made, so that the next to ask pays for it."""
        for name, member in vars(type(self)).items():
            if isinstance(member, functools.cached_property):
                self.__dict__.pop(name, None)


def encode_together(model: E2LLM, contexts: Sequence[EvalContext]) -> None:
    """Encode those contexts that are not encoded yet, short ones in common micro-batches."""
    waiting = [context for context in contexts if "encoded" not in vars(context)]
    tokens, pieces = encode_chunks(model, [chunk for context in waiting for chunk in context.chunks])
    first_chunk = first_piece = 0
    for context in waiting:
        end_chunk = first_chunk + len(context.chunks)
        end_piece = first_piece + sum(pieces[first_chunk:end_chunk])
        text_length = len(context.store.context_text(context.index))
        context.encoded = EncodedContext(tokens[first_piece:end_piece], text_length)
        first_chunk, first_piece = end_chunk, end_piece
