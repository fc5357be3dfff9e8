"""Greedy answers to many prompts on few beginnings, each beginning held once in the key-value cache.

A *beginning* is what stands before the end of the context. A row of the cache holds one or several beginnings, and
behind them, packed one after another, the prompts that go on from them; a mask keeps them apart:

    row of the cache    beginning 0 │ beginning 1 │ tail of prompt 0 │ tail of prompt 1 │ tokens of 0, 1, 0, 1, ...
    a query of prompt 1 sees          ^^^^^^^^^^^                      ^^^^^^^^^^^^^^^^             ^     ^

So a context of any length is neither computed nor stored again for its second prompt, hardly anything is padded, a
prompt that has ended takes no further part, and only the last position of each goes through the language-model head.

Shape suffixes: U rows, Q queries of a row in one pass, T columns of the cache, N tokens fed in one pass, R prompts,
d decoder width.
"""

import itertools
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from model.pro_model import E2LLM

_PADDING = -1
"""Owner of the columns that hold nothing; beginnings and prompts are numbered from 0."""
_ROW_COLUMNS = 256
"""Columns that a row takes at least, if there is enough to fill it. Longer rows balance better as prompts end; every
query looks at all columns of its row, which is still little work beside its passes through the linear layers."""
_LONG = 4096
"""Positions of a beginning that is run by itself: alone it needs no mask, which would take the square of this."""
_GROWTH = 64
"""Columns by which a full cache layer grows at least."""
_DROP_BELOW = 0.75
"""Rows without a live prompt leave the cache when no more than this share of the rows is left: leaving copies it."""


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
class _Stream:
    """A beginning or a prompt as a source of tokens: what it feeds next, where to, and what it has said."""

    owner: int
    """Its number; its columns of the cache carry it."""
    parent: int
    """The number of the beginning it goes on from; a beginning's own."""
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
        heads: B beginnings, embeddings [P, d].
        num_columns: columns that each beginning takes with the prompts on it, the beginning itself included; decides
            what shares a row.
        spare: columns that all prompts and answers of a row will take, as far as known.
    """

    def __init__(self, model: "E2LLM", heads: Sequence[torch.Tensor], num_columns: Sequence[int], spare: int):
        self.model = model
        self.layers = [ReservedLayer(spare) for _ in DynamicCache(config=model.causal_lm.config).layers]
        self.cache = Cache(layers=list(self.layers))
        rows = fill_rows(num_columns, _ROW_COLUMNS)
        self.rows = list(range(max(rows) + 1))
        """The rows still in the cache."""
        self.owner_UT = torch.empty(len(self.rows), 0, dtype=torch.long, device=model.device)
        self.heads = [_Stream(n, n, row, 0, head) for n, (row, head) in enumerate(zip(rows, heads, strict=True))]
        if any(len(head) for head in heads):
            self._feed(self.heads)

    def answer(
        self, tails: Sequence[tuple[int, torch.Tensor]], max_new_tokens: int, end_ids: Collection[int]
    ) -> list[DecodedPrompt]:
        """Answer R prompts. A decoder of a single beginning can be asked again.

        Args:
            tails: for each prompt the number of its beginning and the embeddings [S, d] that follow it, S at least 1.
            end_ids: the tokens that end an answer; without one, nothing does before `max_new_tokens`.
        """
        streams = [
            _Stream(number, head, self.heads[head].row, self.heads[head].position, tail)
            for number, (head, tail) in enumerate(tails, start=len(self.heads))
        ]
        num_columns = self.owner_UT.shape[1]
        embedding = self.model.decoder.get_input_embeddings()
        live, first_token_at = streams, None
        for step in range(max_new_tokens):
            last_Rd = self._feed(live)
            with self.model.resolved_compute.autocast():
                tokens_R = self.model.head(last_Rd).float().argmax(-1)
            for stream, token in zip(live, tokens_R.tolist(), strict=True):
                stream.finished = token in end_ids
                if not stream.finished:
                    stream.token_ids.append(token)
            first_token_at = first_token_at or time.perf_counter()
            if step == max_new_tokens - 1 or all(stream.finished for stream in live):
                break
            for stream, embedded_d in zip(live, embedding(tokens_R), strict=True):
                stream.feed_qd = embedded_d[None]
            live = [stream for stream in live if not stream.finished]
            self._drop_rows({stream.row for stream in live})
        if len(self.heads) == 1:
            self._forget(num_columns)
        return [DecodedPrompt(stream.token_ids, stream.finished, first_token_at) for stream in streams]

    def _feed(self, streams: Sequence[_Stream]) -> torch.Tensor:
        """Run what the streams have to feed; returns the hidden state [streams, d] of each one's last token."""
        device, start = self.owner_UT.device, self.owner_UT.shape[1]
        row_N, column_N, last = self._places(streams)
        shape = (len(self.rows), int(column_N.max()) + 1)
        counts = torch.tensor([len(stream.feed_qd) for stream in streams], device=device)
        embeddings_UQd = streams[0].feed_qd.new_zeros(*shape, streams[0].feed_qd.shape[1])
        embeddings_UQd[row_N, column_N] = torch.cat([stream.feed_qd for stream in streams])
        positions_UQ = torch.zeros(shape, dtype=torch.long, device=device)
        positions_UQ[row_N, column_N] = torch.cat(
            [torch.arange(s.position, s.position + len(s.feed_qd), device=device) for s in streams]
        )
        owner_UQ, parent_UQ = (torch.full(shape, _PADDING, device=device) for _ in range(2))
        owner_UQ[row_N, column_N] = torch.tensor([s.owner for s in streams], device=device).repeat_interleave(counts)
        parent_UQ[row_N, column_N] = torch.tensor([s.parent for s in streams], device=device).repeat_interleave(counts)
        self.owner_UT = torch.cat([self.owner_UT, owner_UQ], dim=1)
        # A single first sequence is plainly causal, and without a mask attention takes its faster kernels.
        mask = None if start == 0 and len(streams) == 1 else self._mask(owner_UQ, parent_UQ, start)
        with self.model.resolved_compute.autocast():
            hidden_UQd = self.model.causal_lm.get_decoder()(
                inputs_embeds=embeddings_UQd,
                attention_mask=mask,
                position_ids=positions_UQ,
                past_key_values=self.cache,
                use_cache=True,
            ).last_hidden_state
        for stream in streams:
            stream.position += len(stream.feed_qd)
        return hidden_UQd[row_N[last], column_N[last]]

    def _places(self, streams: Sequence[_Stream]) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Return for all N tokens to feed their place among the rows and their column in this pass, both [N], and for
        every stream the number of its last token."""
        place_of_row = {row: place for place, row in enumerate(self.rows)}
        used = [0] * len(self.rows)
        rows, columns, last = [], [], []
        for stream in streams:
            place, count = place_of_row[stream.row], len(stream.feed_qd)
            rows += [place] * count
            columns += range(used[place], used[place] + count)
            used[place] += count
            last.append(len(rows) - 1)
        device = self.owner_UT.device
        return torch.tensor(rows, device=device), torch.tensor(columns, device=device), last

    def _mask(self, owner_UQ: torch.Tensor, parent_UQ: torch.Tensor, start: int) -> torch.Tensor:
        """Return the mask [U, 1, Q, T]: a query sees its beginning, and the columns of its own up to itself.

        A padding query sees padding, itself at least, so that no row of the softmax is empty.
        """
        columns_T = torch.arange(self.owner_UT.shape[1], device=owner_UQ.device)
        seen_QT = columns_T <= columns_T[start:, None]
        owner_U1T = self.owner_UT[:, None, :]
        mask_UQT = (owner_U1T == owner_UQ[:, :, None]) | (owner_U1T == parent_UQ[:, :, None])
        mask_U1QT = (mask_UQT & seen_QT)[:, None]
        if self.model.resolved_compute.attn_implementation == "sdpa":
            return mask_U1QT
        dtype = self.model.resolved_compute.dtype
        return torch.zeros_like(mask_U1QT, dtype=dtype).masked_fill_(~mask_U1QT, torch.finfo(dtype).min)

    def _drop_rows(self, live_rows: set[int]) -> None:
        places = [place for place, row in enumerate(self.rows) if row in live_rows]
        if len(places) <= _DROP_BELOW * len(self.rows):
            self.rows = [self.rows[place] for place in places]
            index_U = torch.tensor(places, device=self.owner_UT.device)
            self.owner_UT = self.owner_UT[index_U]
            for layer in self.layers:
                layer.keep(layer.length, index_U)

    def _forget(self, num_columns: int) -> None:
        """Forget all columns but the first."""
        self.owner_UT = self.owner_UT[:, :num_columns]
        for layer in self.layers:
            layer.keep(num_columns)


def fill_rows(sizes: Sequence[int], least: int) -> list[int]:
    """Put things of given sizes into rows of the size of the largest or `least`, first fit, largest first.

    Returns:
        The row of each.
    """
    capacity = max(least, *sizes)
    rows, room = [0] * len(sizes), []
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        row = next((row for row, left in enumerate(room) if left >= sizes[index]), len(room))
        if row == len(room):
            room.append(capacity)
        room[row] -= sizes[index]
        rows[index] = row
    return rows


def plan_groups(
    head_lengths: Sequence[int], tail_lengths: Sequence[Sequence[int]], max_new_tokens: int, max_positions: int
) -> list[list[tuple[int, int, int]]]:
    """Group beginnings of similar length so that the columns of a group's cache stay within a bound.

    Args:
        head_lengths: positions of each beginning.
        tail_lengths: for each beginning the positions of its prompts' tails.
        max_positions: columns of a group, answers included; a single prompt on a longer beginning still makes a group
            of its own, as does a long beginning.

    Returns:
        Groups of (beginning, first prompt, end of its prompts). The prompts of a beginning are cut over several groups
        only where they alone exceed the bound; these groups hold that beginning alone and follow one another.
    """
    groups: list[list[tuple[int, int, int]]] = []
    room = 0
    for head in sorted(range(len(head_lengths)), key=lambda index: (head_lengths[index], index)):
        columns = [length + max_new_tokens for length in tail_lengths[head]]
        total = head_lengths[head] + sum(columns)
        if total > max_positions or head_lengths[head] > _LONG:
            groups += [[part] for part in _parts(head, columns, max_positions - head_lengths[head])]
            room = 0
            continue
        if total > room:
            groups.append([])
            room = max_positions
        groups[-1].append((head, 0, len(columns)))
        room -= total
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
