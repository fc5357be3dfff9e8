"""From planned units to the tensors the model takes.

A decoder row is

    prefix ids | slot x (chunks * K) | suffix ids | answer ids <eos>
    labels: -100 everywhere but on the answer

Rows of one unit read the same chunk tokens, so a unit's chunks stand once among the M chunks of the batch. Shape
suffixes: B rows, T positions, M chunks, L encoder tokens a chunk, S slots of all rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from utils.tokenization import PromptIds, pad_chunks

IGNORE = -100


@dataclass
class DecoderRow:
    """One row of the decoder, its chunk tokens still to come."""

    prompt: PromptIds
    answer_ids: tuple[int, ...]
    example_id: str

    def length(self, num_slots: int) -> int:
        """Decoder positions the row takes with `num_slots` chunk tokens."""
        return len(self.prompt.prefix_ids) + num_slots + len(self.prompt.suffix_ids) + len(self.answer_ids)


@dataclass
class TokenizedUnit:
    """A planned unit in token ids: the pieces of its chunks, and the rows that read them."""

    piece_ids: list[list[int]]
    rows: list[DecoderRow]


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


def collate(
    units: Sequence[TokenizedUnit], num_chunk_tokens: int, encoder_pad_id: int, decoder_pad_id: int
) -> MicroBatch:
    """Lay units out as tensors; rows are padded on the right.

    Returns:
        Tensors `chunk_ids`, `chunk_mask` [M, L]; `input_ids`, `attention_mask`, `position_ids`, `labels`, `slot_mask`
        [B, T]; `slot_source` [S], for each slot in row-major order its index among the M * K chunk tokens.
    """
    pieces = [piece for unit in units for piece in unit.piece_ids]
    chunk_ids_ML, chunk_mask_ML = pad_chunks(pieces, encoder_pad_id)
    rows = [row for unit in units for row in unit.rows]
    longest = max(row.length(len(unit.piece_ids) * num_chunk_tokens) for unit in units for row in unit.rows)
    input_ids_BT = torch.full((len(rows), longest), decoder_pad_id, dtype=torch.long)
    attention_mask_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    labels_BT = torch.full((len(rows), longest), IGNORE, dtype=torch.long)
    slot_mask_BT = torch.zeros(len(rows), longest, dtype=torch.bool)
    sources, first_piece, place = [], 0, 0
    for unit in units:
        num_slots = len(unit.piece_ids) * num_chunk_tokens
        first_source = first_piece * num_chunk_tokens
        for row in unit.rows:
            slots = slice(len(row.prompt.prefix_ids), len(row.prompt.prefix_ids) + num_slots)
            end = row.length(num_slots)
            answer = slice(end - len(row.answer_ids), end)
            input_ids_BT[place, : slots.start] = torch.tensor(row.prompt.prefix_ids, dtype=torch.long)
            input_ids_BT[place, slots.stop : answer.start] = torch.tensor(row.prompt.suffix_ids, dtype=torch.long)
            input_ids_BT[place, answer] = torch.tensor(row.answer_ids, dtype=torch.long)
            labels_BT[place, answer] = input_ids_BT[place, answer]
            attention_mask_BT[place, :end] = 1
            slot_mask_BT[place, slots] = True
            sources.append(torch.arange(first_source, first_source + num_slots))
            place += 1
        first_piece += len(unit.piece_ids)
    tensors = {
        "chunk_ids": chunk_ids_ML,
        "chunk_mask": chunk_mask_ML,
        "input_ids": input_ids_BT,
        "attention_mask": attention_mask_BT,
        "position_ids": torch.arange(longest).expand(len(rows), -1).contiguous(),
        "labels": labels_BT,
        "slot_mask": slot_mask_BT,
        "slot_source": torch.cat(sources),
    }
    return MicroBatch(
        tensors,
        # The first position is never predicted; an answer never stands there, since a prompt is never empty.
        num_labels=int((labels_BT[:, 1:] != IGNORE).sum()),
        num_context_tokens=int(chunk_mask_ML.sum()),
        num_decoder_tokens=int(attention_mask_BT.sum()),
        example_ids=[row.example_id for row in rows],
    )
