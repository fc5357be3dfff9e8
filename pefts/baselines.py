"""What the base decoder, without LoRA, reads of a context in each baseline mode of an evaluation.

A mode maps (context, prompt, room) to the decoder tokens that stand in the context's place; `room` is what the
decoder's window leaves for them beside the longest prompt of the context and an answer. The *budget* is the number of
decoder positions that E2LLM takes for the same context.
"""

from collections.abc import Callable, Sequence

from model.retrieval import embed_texts
from pefts.eval_contexts import EvalContext

Reader = Callable[[EvalContext, str, int], list[int]]


def keep_head(ids: Sequence[int], count: int) -> list[int]:
    """Return the first `count` tokens."""
    return list(ids[:count])


def keep_tail(ids: Sequence[int], count: int) -> list[int]:
    """Return the last `count` tokens."""
    return list(ids[max(0, len(ids) - count) :])


def keep_both_ends(ids: Sequence[int], count: int) -> list[int]:
    """Return `count` tokens, half of them from the beginning and half from the end."""
    if len(ids) <= count:
        return list(ids)
    return keep_head(ids, count - count // 2) + keep_tail(ids, count // 2)


def base_closed_book(context: EvalContext, prompt: str, room: int) -> list[int]:
    """Nothing: the prompt alone."""
    return []


def truncate_head(context: EvalContext, prompt: str, room: int) -> list[int]:
    """The beginning of the context, as much as the window holds."""
    return keep_head(context.token_ids, room)


def truncate_tail(context: EvalContext, prompt: str, room: int) -> list[int]:
    """The end of the context, as much as the window holds."""
    return keep_tail(context.token_ids, room)


def truncate_middle(context: EvalContext, prompt: str, room: int) -> list[int]:
    """Beginning and end of the context, as much as the window holds; the middle is left out."""
    return keep_both_ends(context.token_ids, room)


def truncate_to_budget_head(context: EvalContext, prompt: str, room: int) -> list[int]:
    """The beginning of the context, in as many positions as E2LLM takes."""
    return keep_head(context.token_ids, min(room, context.num_slots))


def truncate_to_budget_tail(context: EvalContext, prompt: str, room: int) -> list[int]:
    """The end of the context, in as many positions as E2LLM takes."""
    return keep_tail(context.token_ids, min(room, context.num_slots))


def truncate_to_budget_middle(context: EvalContext, prompt: str, room: int) -> list[int]:
    """Beginning and end of the context, in as many positions as E2LLM takes."""
    return keep_both_ends(context.token_ids, min(room, context.num_slots))


def retrieval_to_budget(context: EvalContext, prompt: str, room: int) -> list[int]:
    """The chunks nearest to the prompt, in as many positions as E2LLM takes."""
    return retrieve(context, prompt, min(room, context.num_slots))


def retrieval_to_window(context: EvalContext, prompt: str, room: int) -> list[int]:
    """The chunks nearest to the prompt, as many as the window holds."""
    return retrieve(context, prompt, room)


def full(context: EvalContext, prompt: str, room: int) -> list[int]:
    """The whole context; where it exceeds the window, the decoder's RoPE is scaled (`model.rope_scaling`)."""
    return context.token_ids


BASELINES: dict[str, Reader] = {
    reader.__name__: reader
    for reader in (
        base_closed_book,
        truncate_head,
        truncate_tail,
        truncate_middle,
        truncate_to_budget_head,
        truncate_to_budget_tail,
        truncate_to_budget_middle,
        retrieval_to_budget,
        retrieval_to_window,
        full,
    )
}


def retrieve(context: EvalContext, prompt: str, count: int) -> list[int]:
    """Return `count` decoder tokens of the chunks nearest to the prompt, in the order of the document.

    Chunks are taken by the cosine of the encoder's mean-pooled vectors (without LoRA) until the tokens are used up; the
    last one taken is cut to what is left.
    """
    if len(context.token_ids) <= count:
        return context.token_ids
    similarity_n = context.chunk_vectors @ embed_texts(context.model, [prompt])[0]
    taken: dict[int, list[int]] = {}
    for chunk in similarity_n.argsort(descending=True, stable=True).tolist():
        if count <= 0:
            break
        taken[chunk] = keep_head(context.chunk_token_ids[chunk], count)
        count -= len(taken[chunk])
    return [token for chunk in sorted(taken) for token in taken[chunk]]
