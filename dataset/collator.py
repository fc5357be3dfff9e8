"""From planned units to the tensors the model takes.

A decoder row is

    prefix ids | slot x (chunks * K) | suffix ids | answer ids <eos>
    labels: -100 everywhere but on the answer

Rows of one unit read the same chunk tokens, so a unit's chunks stand once among the M chunks of the batch. And where
they begin alike, the decoder need read them only once too: packed, they become branches of one sequence,

    prefix ids | slots | suffix 1, answer 1 <eos> | suffix 2, answer 2 <eos> | ...
    branch ids:      0 | 1 1 1 ...                | 2 2 2 ...
    position ids of each branch go on from the end of the slots

and several sequences share a row where that saves padding. A position sees the shared beginning of its sequence and its
own branch: the same numbers as in rows of their own. Shape suffixes: B rows, T positions, M chunks, L encoder tokens a
chunk, S slots of all rows.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from utils.tokenization import PromptIds, pad_chunks

IGNORE = -100
ATTENTION_BALANCE = 2048
"""Length of a row at which its attention costs about as much as its linear layers: from a profile of the demo's decoder
on a CPU (7 % of a step at 145 positions); by operations it is some five times the decoder's width."""


@dataclass
class DecoderRow:
    """One row of the decoder, its chunk tokens still to come."""

    prompt: PromptIds
    answer_ids: tuple[int, ...]
    example_id: str

    def length(self, num_slots: int) -> int:
        """Decoder positions the row takes with `num_slots` chunk tokens."""
        return len(self.prompt.prefix_ids) + num_slots + self.branch_length

    @property
    def branch_length(self) -> int:
        """Decoder positions behind the chunk tokens."""
        return len(self.prompt.suffix_ids) + len(self.answer_ids)


@dataclass
class TokenizedUnit:
    """A planned unit in token ids: the pieces of its chunks, and the rows that read them."""

    piece_ids: list[list[int]]
    rows: list[DecoderRow]

    def length(self, num_chunk_tokens: int, pack: bool) -> int:
        """Decoder positions of the longest sequence that the unit becomes."""
        num_slots = len(self.piece_ids) * num_chunk_tokens
        return max(_sequence_length(group, num_slots) for group in branch_groups(self.rows, pack))


@dataclass
class MicroBatch:
    """What goes through the model at once."""

    tensors: dict[str, torch.Tensor]
    num_labels: int
    num_context_tokens: int
    num_decoder_tokens: int
    example_ids: list[str] = field(default_factory=list)

    def to(self, device: torch.device) -> "MicroBatch":
        """Move the tensors to a device."""
        tensors = {name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors.items()}
        return MicroBatch(tensors, self.num_labels, self.num_context_tokens, self.num_decoder_tokens, self.example_ids)


def branch_groups(rows: Sequence[DecoderRow], pack: bool) -> list[list[DecoderRow]]:
    """Group the rows of a unit that can be branches of one: those with the same prefix and something behind the slots.

    Without a suffix the last chunk token itself predicts the answer, which it can do for one row only.
    """
    if not pack:
        return [[row] for row in rows]
    groups: dict[object, list[DecoderRow]] = {}
    for index, row in enumerate(rows):
        key = row.prompt.prefix_ids if row.prompt.suffix_ids else index
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def lay_end_to_end(lengths: Sequence[int]) -> list[list[int]]:
    """Share sequences out among the rows of a batch so that padding and attention together cost least.

    Args:
        lengths: positions of each sequence.

    Returns:
        The sequences of each row, by index.
    """
    longest_first = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    best, least = [], float("inf")
    for num_rows in range(len(lengths), 0, -1):
        rows: list[list[int]] = [[] for _ in range(num_rows)]
        filled = [(0, row) for row in range(num_rows)]  # a heap: the shortest row takes the next sequence
        for index in longest_first:
            length, row = filled[0]
            rows[row].append(index)
            heapq.heapreplace(filled, (length + lengths[index], row))
        longest = max(length for length, _ in filled)
        cost = num_rows * longest * (ATTENTION_BALANCE + longest)
        if cost < least:
            best, least = rows, cost
    return best


def collate(
    units: Sequence[TokenizedUnit],
    num_chunk_tokens: int,
    encoder_pad_id: int,
    pack: bool = False,
) -> MicroBatch:
    """Lay units out as tensors; rows are padded on the right.

    Args:
        pack: make the prompts of a unit branches of one sequence, and lay sequences end to end. Needs an attention that
            takes a mask of its own for every position (`eager`, `sdpa`).

    Returns:
        Tensors `chunk_ids`, `chunk_mask` [M, L]; `input_ids`, `attention_mask`, `position_ids`, `labels`, `slot_mask`
        [B, T]; `slot_source` [S], for each slot in row-major order its index among the M * K chunk tokens; and, where a
        row has branches or several sequences, `sequence_ids` [B, T], -1 on padding, and `branch_ids` [B, T], 0 on what
        the branches of a sequence share.
    """
    pieces = [piece for unit in units for piece in unit.piece_ids]
    chunk_ids_ML, chunk_mask_ML = pad_chunks(pieces, encoder_pad_id)
    sequences, first_source = [], 0
    for unit in units:
        slot_sources = torch.arange(first_source, first_source + len(unit.piece_ids) * num_chunk_tokens)
        sequences += [(slot_sources, group) for group in branch_groups(unit.rows, pack)]
        first_source += len(slot_sources)
    lengths = [_sequence_length(group, len(slot_sources)) for slot_sources, group in sequences]
    rows = lay_end_to_end(lengths) if pack else [[index] for index in range(len(sequences))]
    shape = (len(rows), max(sum(lengths[index] for index in row) for row in rows))
    decoder = {
        # Any token of the vocabulary will do on padding, and a tokenizer's own may lie beyond the decoder's.
        "input_ids": torch.zeros(shape, dtype=torch.long),
        # Zero on padding, since embeddings of positions are looked up there too.
        "position_ids": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORE),
        "slot_mask": torch.zeros(shape, dtype=torch.bool),
        "sequence_ids": torch.full(shape, -1),
        "branch_ids": torch.zeros(shape, dtype=torch.long),
    }
    for place, row in enumerate(rows):
        start = 0
        for index in row:
            end = start + lengths[index]
            slot_sources, group = sequences[index]
            _write_sequence(
                {name: tensor[place, start:end] for name, tensor in decoder.items()}, group, len(slot_sources)
            )
            decoder["sequence_ids"][place, start:end] = index
            start = end
    tensors = {
        "chunk_ids": chunk_ids_ML,
        "chunk_mask": chunk_mask_ML,
        "attention_mask": (decoder["sequence_ids"] >= 0).long(),
        "slot_source": torch.cat([sequences[index][0] for row in rows for index in row]),
        **decoder,
    }
    if len(rows) == sum(len(unit.rows) for unit in units):
        del tensors["sequence_ids"], tensors["branch_ids"]
    return MicroBatch(
        tensors,
        # The first position is never predicted; an answer never stands there, since a prompt is never empty.
        num_labels=int((tensors["labels"][:, 1:] != IGNORE).sum()),
        num_context_tokens=int(chunk_mask_ML.sum()),
        num_decoder_tokens=int(tensors["attention_mask"].sum()),
        example_ids=[row.example_id for unit in units for row in unit.rows],
    )


def _sequence_length(group: Sequence[DecoderRow], num_slots: int) -> int:
    return group[0].length(num_slots) + sum(row.branch_length for row in group[1:])


def _write_sequence(places: dict[str, torch.Tensor], group: Sequence[DecoderRow], num_slots: int) -> None:
    """Write rows with the same beginning into the places of one sequence, [length] of each of the decoder's tensors."""
    prefix_ids = group[0].prompt.prefix_ids
    num_shared = len(prefix_ids) + num_slots
    places["input_ids"][: len(prefix_ids)] = torch.tensor(prefix_ids)
    places["slot_mask"][len(prefix_ids) : num_shared] = True
    places["position_ids"][:num_shared] = torch.arange(num_shared)
    start = num_shared
    for branch, row in enumerate(group, start=1):
        end = start + row.branch_length
        answer = slice(end - len(row.answer_ids), end)
        places["input_ids"][start:end] = torch.tensor(row.prompt.suffix_ids + row.answer_ids)
        places["labels"][answer] = places["input_ids"][answer]
        places["position_ids"][start:end] = torch.arange(num_shared, num_shared + row.branch_length)
        places["branch_ids"][start:end] = branch
        start = end
