"""Greedy answers to many prompts on few beginnings, each beginning held once in the key-value cache.

A *beginning* is what stands before the end of the context; the prompts that share it are packed one after another into
its row of the cache, and a mask keeps them apart:

    row u of the cache    beginning │ tail of prompt 0 │ tail of prompt 1 │ tokens of 0, 1, 0, 1, ...
    a query of prompt 1 attends to  ^^^^^^^^^            ^^^^^^^^^^^^^^^^            ^     ^

So a context of any length is neither computed nor stored again for its second prompt, a prompt that has ended takes no
further part, and only the last position of each prompt goes through the language-model head.

Shape suffixes: U rows (beginnings), P positions of a beginning, Q queries of a row in one pass, T columns of the cache,
R prompts, d decoder width, V vocabulary.
"""

import inspect
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from model.pro_model import E2LLM

_SHARED, _PADDING = -1, -2
"""Owners of cache columns that belong to no single prompt; prompts are numbered from 0."""
_GROWTH = 64
"""Columns by which a full cache layer grows at least."""
_DROP_BELOW = 0.75
"""Rows without a live prompt leave the cache when no more than this share of the rows is left: leaving copies it."""


def can_pack(model: "E2LLM") -> bool:
    """Tell whether a decoder can run packed: full attention in all layers, kernels that take any mask, positions that
    are given and not counted. Others go through transformers' `generate`, with a copy of the beginning a prompt."""
    decoder = model.causal_lm.get_decoder()
    layers = DynamicCache(config=decoder.config).layers
    return (
        model.resolved_compute.attn_implementation in {"sdpa", "eager"}
        and all(type(layer) is DynamicLayer for layer in layers)
        and "position_ids" in inspect.signature(decoder.forward).parameters
    )


class ReservedLayer(DynamicLayer):
    """A cache layer with room reserved, so that a step writes its columns instead of copying all the others.

    Args:
        spare: columns to reserve beyond those first written.
    """

    def __init__(self, spare: int):
        super().__init__()
        self.spare = spare
        self.length = 0

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs):
        """Append keys and values [U, heads, Q, head width]; returns all of them, as views."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.key_room = key_states.new_empty(*key_states.shape[:2], 0, key_states.shape[-1])
            self.value_room = value_states.new_empty(*value_states.shape[:2], 0, value_states.shape[-1])
        start, self.length = self.length, self.length + key_states.shape[2]
        if self.length > self.key_room.shape[2]:
            capacity = self.length + max(self.spare, _GROWTH)
            self.key_room = _grown(self.key_room, start, capacity)
            self.value_room = _grown(self.value_room, start, capacity)
        self.key_room[:, :, start : self.length] = key_states
        self.value_room[:, :, start : self.length] = value_states
        return self._view()

    def keep(self, length: int, rows: torch.Tensor | None = None) -> None:
        """Keep the first `length` columns, and of the rows those given."""
        if rows is not None:
            self.key_room, self.value_room = self.key_room[rows], self.value_room[rows]
        self.length = length
        self._view()

    def _view(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.keys, self.values = self.key_room[:, :, : self.length], self.value_room[:, :, : self.length]
        return self.keys, self.values


def _grown(room: torch.Tensor, used: int, capacity: int) -> torch.Tensor:
    grown = room.new_empty(*room.shape[:2], capacity, room.shape[3])
    grown[:, :, :used] = room[:, :, :used]
    return grown


@dataclass
class _Prompt:
    """A prompt on its way: what it feeds next, where, and what it has said."""

    number: int
    row: int
    position: int
    """Of the next token fed."""
    feed_qd: torch.Tensor
    """Embeddings not yet in the cache."""
    token_ids: list[int] = field(default_factory=list)
    finished: bool = False


@dataclass
class DecodedPrompt:
    """The tokens of an answer, without the end-of-sequence token."""

    token_ids: list[int]
    finished: bool
    """False when `max_new_tokens` ended it."""
    first_token_at: float
    """`time.perf_counter()` when the first token was known."""


class PackedDecoder:
    """Beginnings read into a cache, to answer prompts on them.

    Args:
        heads: U beginnings, embeddings [P_u, d]; without a position where the tails hold all.
        spare: columns that the prompts and their answers will take in a row, as far as known.
    """

    def __init__(self, model: "E2LLM", heads: Sequence[torch.Tensor], spare: int):
        self.model = model
        self.layers = [ReservedLayer(spare) for _ in DynamicCache(config=model.causal_lm.config).layers]
        self.cache = Cache(layers=list(self.layers))
        self.lengths = [len(head) for head in heads]
        self.rows = list(range(len(heads)))
        """The beginning that each row of the cache holds."""
        longest = max(self.lengths)
        heads_UPd = heads[0].new_zeros(len(heads), longest, heads[0].shape[1])
        for row, head in enumerate(heads):
            heads_UPd[row, : len(head)] = head
        columns_P = torch.arange(longest, device=heads_UPd.device)
        real_UP = columns_P < torch.tensor(self.lengths, device=heads_UPd.device)[:, None]
        self.owner_UT = torch.where(real_UP, _SHARED, _PADDING)
        # A single beginning has no padding, and without a mask attention takes its faster kernels.
        mask_UP = None if len(heads) == 1 else real_UP.long()
        if longest:
            self._run(heads_UPd, mask_UP, columns_P.expand(len(heads), -1))

    def answer(self, tails: Sequence[tuple[int, torch.Tensor]], max_new_tokens: int) -> list[DecodedPrompt]:
        """Answer R prompts, each given as the number of its beginning and the embeddings [S, d] that follow it, S at
        least 1. The beginnings stay for further prompts only when every one is a single row (U = 1)."""
        prompts = [_Prompt(n, head, self.lengths[head], tail) for n, (head, tail) in enumerate(tails)]
        length = self.owner_UT.shape[1]
        eos_id = self.model.decoder_tokenizer.eos_token_id
        embedding = self.model.decoder.get_input_embeddings()
        live, first_token_at = prompts, None
        for step in range(max_new_tokens):
            tokens_R = self._next_tokens(live)
            embedded_Rd = embedding(tokens_R)
            for prompt, token, embedded_d in zip(live, tokens_R.tolist(), embedded_Rd, strict=True):
                prompt.finished = token == eos_id
                if not prompt.finished:
                    prompt.token_ids.append(token)
                prompt.feed_qd = embedded_d[None]
            first_token_at = first_token_at or time.perf_counter()
            live = [prompt for prompt in live if not prompt.finished]
            if not live or step == max_new_tokens - 1:
                break
            self._drop_rows({prompt.row for prompt in live})
        if len(self.rows) == 1:
            self._keep(length)
        return [DecodedPrompt(prompt.token_ids, prompt.finished, first_token_at) for prompt in prompts]

    def _next_tokens(self, live: Sequence[_Prompt]) -> torch.Tensor:
        """Feed what each live prompt has to feed; returns its likeliest next token [R]."""
        device, start = self.owner_UT.device, self.owner_UT.shape[1]
        place_of_row = {row: place for place, row in enumerate(self.rows)}
        used = [0] * len(self.rows)
        rows, columns, owners, positions, lasts = [], [], [], [], []
        for prompt in live:
            row, count = place_of_row[prompt.row], len(prompt.feed_qd)
            rows += [row] * count
            columns += range(used[row], used[row] + count)
            owners += [prompt.number] * count
            positions += range(prompt.position, prompt.position + count)
            used[row] += count
            prompt.position += count
            lasts.append(len(rows) - 1)
        rows_N, columns_N = torch.tensor(rows, device=device), torch.tensor(columns, device=device)
        shape = (len(self.rows), max(used))
        embeddings_UQd = live[0].feed_qd.new_zeros(*shape, live[0].feed_qd.shape[1])
        embeddings_UQd[rows_N, columns_N] = torch.cat([prompt.feed_qd for prompt in live])
        positions_UQ = torch.zeros(shape, dtype=torch.long, device=device)
        positions_UQ[rows_N, columns_N] = torch.tensor(positions, device=device)
        owner_UQ = torch.full(shape, _PADDING, device=device)
        owner_UQ[rows_N, columns_N] = torch.tensor(owners, device=device)
        self.owner_UT = torch.cat([self.owner_UT, owner_UQ], dim=1)
        hidden_UQd = self._run(embeddings_UQd, self._mask(owner_UQ, start, embeddings_UQd.dtype), positions_UQ)
        with self.model.resolved_compute.autocast():
            return self.model.head(hidden_UQd[rows_N[lasts], columns_N[lasts]]).float().argmax(-1)

    def _mask(self, owner_UQ: torch.Tensor, start: int, dtype: torch.dtype) -> torch.Tensor:
        """Return the mask [U, 1, Q, T]: a query sees the beginning and the columns of its own prompt up to itself.

        A padding query sees padding, itself at least, so that no row of the softmax is empty.
        """
        num_columns = self.owner_UT.shape[1]
        columns_T = torch.arange(num_columns, device=owner_UQ.device)
        seen_QT = columns_T <= columns_T[start:, None]
        owner_U1T = self.owner_UT[:, None, :]
        mask_U1QT = (((owner_U1T == owner_UQ[:, :, None]) & seen_QT) | (owner_U1T == _SHARED))[:, None]
        if self.model.resolved_compute.attn_implementation == "sdpa":
            return mask_U1QT
        return torch.zeros(mask_U1QT.shape, dtype=dtype, device=owner_UQ.device).masked_fill_(
            ~mask_U1QT, torch.finfo(dtype).min
        )

    def _run(self, embeddings_UQd: torch.Tensor, mask: torch.Tensor | None, positions_UQ: torch.Tensor) -> torch.Tensor:
        with self.model.resolved_compute.autocast():
            return self.model.causal_lm.get_decoder()(
                inputs_embeds=embeddings_UQd,
                attention_mask=mask,
                position_ids=positions_UQ,
                past_key_values=self.cache,
                use_cache=True,
            ).last_hidden_state

    def _drop_rows(self, live_rows: set[int]) -> None:
        places = [place for place, row in enumerate(self.rows) if row in live_rows]
        if len(places) <= _DROP_BELOW * len(self.rows):
            self.rows = [self.rows[place] for place in places]
            index_U = torch.tensor(places, device=self.owner_UT.device)
            self.owner_UT = self.owner_UT[index_U]
            for layer in self.layers:
                layer.keep(layer.length, index_U)

    def _keep(self, length: int) -> None:
        self.owner_UT = self.owner_UT[:, :length]
        for layer in self.layers:
            layer.keep(length)


def plan_groups(
    head_lengths: Sequence[int], tail_lengths: Sequence[Sequence[int]], max_new_tokens: int, max_positions: int
) -> list[list[tuple[int, int, int]]]:
    """Group beginnings of similar length so that the columns of a group's cache stay within a bound.

    Args:
        head_lengths: positions of each beginning.
        tail_lengths: for each beginning the positions of its prompts' tails.
        max_positions: rows times columns of a cache, answers included; a single prompt on a longer beginning still
            makes a group of its own.

    Returns:
        Groups of (beginning, first prompt, end of its prompts). The prompts of a beginning are cut over several groups
        only where they alone exceed the bound; these groups hold that beginning alone and follow one another.
    """
    groups: list[list[tuple[int, int, int]]] = []
    longest = widest = 0
    room_left = False
    for head in sorted(range(len(head_lengths)), key=lambda index: (head_lengths[index], index)):
        columns = [length + max_new_tokens for length in tail_lengths[head]]
        if head_lengths[head] + sum(columns) > max_positions:
            groups += [[part] for part in _parts(head, columns, max_positions - head_lengths[head])]
            room_left = False
            continue
        longest, widest = head_lengths[head], max(widest, sum(columns))
        if not room_left or (len(groups[-1]) + 1) * (longest + widest) > max_positions:
            groups.append([])
            widest = sum(columns)
        groups[-1].append((head, 0, len(columns)))
        room_left = True
    return groups


def _parts(head: int, columns: Sequence[int], room: int) -> list[tuple[int, int, int]]:
    """Cut a beginning's prompts into runs that take at most `room` columns, or one prompt."""
    parts, start = [], 0
    while start < len(columns):
        totals = itertools.accumulate(columns[start:])
        end = start + max(1, sum(total <= room for total in totals))
        parts.append((head, start, end))
        start = end
    return parts
