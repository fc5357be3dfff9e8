"""The training data by step: a store, a batch plan and two tokenizers give what a process trains on at step t."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from dataset.batch_plan import BatchPlan, Objective, Unit
from dataset.collator import DecoderRow, MicroBatch, TokenizedUnit, collate
from dataset.cues import choose_cues
from dataset.store import ChunkStore
from utils.common_utils import UserError
from utils.tokenization import ChunkTokenizer, PromptFormatter, pad_chunks

SEAM_TOKENS = 16
"""Bound on the tokens that a prompt has more in its template than the two have apart."""
MANY_WINDOWS = 64
"""Windows to restate that are tried before the training, of as many contexts."""
MANY_PROMPTS = 1000
"""From so many on, checking them shows its progress."""


class NoRoomError(UserError):
    """A prompt and its answer leave no room for a chunk in the decoder's window."""


@dataclass(frozen=True)
class RowLimits:
    """What a decoder row may take."""

    decoder_window: int
    """Decoder positions of prompt, chunk tokens and answer together."""
    max_answer_tokens: int
    """Answer tokens trained on; the rest of a longer answer is left out and counted."""
    num_chunk_tokens: int
    """Chunk tokens a chunk becomes."""


@dataclass
class StepData:
    """What one process trains on at one step, in the micro-batches it goes through."""

    step: int
    objective: Objective
    epoch: int
    micro_batches: list[MicroBatch]
    counts: dict[str, int] = field(default_factory=dict)
    """What was cut to fit: `truncated_answers`, `trimmed_contexts` (chunks beyond the decoder's window) and
    `split_chunks` (longer than the encoder's window, so encoded as several). And `ambiguous_cues`: chunks to be
    restated that hold nothing of their own."""


class StepDataset(Dataset):
    """Maps a step to the `StepData` of one process.

    The global batch's units are sorted by size and dealt to the processes in turn, so that each gets about the same
    work, and each process cuts its share into micro-batches of similar size.

    Args:
        templates: prompt template by task, with `understanding`, `cued` and `default`.
        num_steps: length of the training, in optimizer steps.
        micro_batch_size: decoder rows (windows, or prompts) put through the model at once; the prompts of one context
            are not torn apart.
        pack: make the prompts of one context branches of one row (`dataset.collator`).

    Raises:
        UserError: a batch size cannot be shared by the processes.
        NoRoomError: on reading a step, where a row does not fit.
    """

    def __init__(
        self,
        store: ChunkStore,
        plan: BatchPlan,
        chunk_tokenizer: ChunkTokenizer,
        formatter: PromptFormatter,
        templates: Mapping[str, str],
        limits: RowLimits,
        num_steps: int,
        micro_batch_size: int,
        pack: bool = False,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        for objective, stage_index in itertools.product(("understanding", "reasoning"), range(len(plan.stages))):
            key, size = plan.batch_size(objective, stage_index)
            if size % num_processes:
                raise UserError(
                    f"{key}={size}: not divisible by the {num_processes} processes of this run; "
                    "make it a multiple, or start fewer with PROCESSES_PER_NODE"
                )
        self.store = store
        self.plan = plan
        self.chunk_tokenizer = chunk_tokenizer
        self.formatter = formatter
        self.templates = templates
        self.limits = limits
        self.num_steps = num_steps
        self.micro_batch_size = micro_batch_size
        self.pack = pack
        self.process_index = process_index
        self.num_processes = num_processes

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> StepData:
        batch = self.plan.batch(step)
        counts = {"truncated_answers": 0, "trimmed_contexts": 0, "split_chunks": 0, "ambiguous_cues": 0}
        mine = [self._tokenize(unit, counts) for unit in self._share(batch.units)]
        mine.sort(key=lambda unit: unit.length(self.limits.num_chunk_tokens, self.pack))
        units_at_once = max(1, self.micro_batch_size // batch.prompts_per_unit)
        micro_batches = [
            collate(
                mine[start : start + units_at_once],
                self.limits.num_chunk_tokens,
                self.chunk_tokenizer.tokenizer.pad_token_id,
                self.pack,
            )
            for start in range(0, len(mine), units_at_once)
        ]
        return StepData(step, batch.objective, batch.epoch, micro_batches, counts)

    def chunks_of_others(self, step: int) -> dict[str, torch.Tensor] | None:
        """Return chunks that a step does not read, to see what its loss is worth without its own.

        They are what this process reads at a near step of the same objective, and so of about the same number.

        Returns:
            `chunk_ids`, `chunk_mask` [M, L]; None, then in all processes, where the steps near read the same chunks.
        """
        units = self.plan.units_of_others(step)
        if not units:
            return None
        chunks = []
        for unit in self._share(units) or units[:1]:
            chunks += self.store.context_chunks(unit.context, unit.first_chunk, unit.end_chunk)
        piece_ids, _ = self.chunk_tokenizer(chunks)
        chunk_ids_ML, chunk_mask_ML = pad_chunks(piece_ids, self.chunk_tokenizer.tokenizer.pad_token_id)
        return {"chunk_ids": chunk_ids_ML, "chunk_mask": chunk_mask_ML}

    def check_examples(self) -> None:
        """Find the examples that could not be trained on now, and not at their own step, hours into the run.

        Raises:
            UserError: an example has no answer.
            NoRoomError: a prompt leaves no room for a chunk, or a window to restate none for all of its own.
        """
        self._check_windows()
        answered = self.plan.examples_answered()
        unanswered = answered[self.store.num_answers[answered] == 0]
        prompts = [self.formatter.prompt_ids(template) for template in self.templates.values()]
        template_tokens = max(len(prompt.prefix_ids) + len(prompt.suffix_ids) for prompt in prompts)
        # No token stands for less than a byte, but for a few where texts are joined.
        most_tokens = self.store.prompt_bytes[answered] + template_tokens + SEAM_TOKENS + self.limits.max_answer_tokens
        is_long = most_tokens + self.limits.num_chunk_tokens > self.limits.decoder_window
        doubtful = np.concatenate([unanswered[:1], answered[is_long]]).tolist()
        for index in tqdm(doubtful, "checking long prompts", leave=False, disable=len(doubtful) < MANY_PROMPTS):
            self._room(self._reasoning_row(index, Counter()))

    def _check_windows(self) -> None:
        """Lay out the windows with the most bytes that each objective restates, which stand for those with the most
        tokens, where the decoder may have no room for one."""
        widths = {}
        for stage in self.plan.stages:
            shares = {"understanding": 1 - stage.cued_share, "cued": stage.cued_share}
            for objective, share in shares.items():
                if share * (1 - stage.reasoning_share) > 0:
                    widths[objective] = max(widths.get(objective, 0), stage.window_limits(objective)[1])
        for objective, width in widths.items():
            prompt = self.formatter.prompt_ids(self.templates[objective])
            # A cue is a part of what is restated, and so no longer than the answer.
            most_tokens = len(prompt.prefix_ids) + len(prompt.suffix_ids) + 2 * self.limits.max_answer_tokens
            if most_tokens + width * self.limits.num_chunk_tokens > self.limits.decoder_window:
                for run in self.store.longest_runs(width, MANY_WINDOWS):
                    self._check_window(Unit(*run, num_cues=width if objective == "cued" else 0))

    def _check_window(self, unit: Unit) -> None:
        rows, piece_ids, _ = self._rows(unit, Counter())
        room = min(self._room(row) for row in rows)
        if len(piece_ids) > room:
            raise NoRoomError(
                f"{rows[0].example_id}: it has {len(piece_ids)} chunks, and beside its prompt and what it restates a "
                f"window of {self.limits.decoder_window} decoder positions has room for {room}; lower "
                "max_window_chunks or max_cued_chunks of data.stages, or data.max_answer_tokens"
            )

    def _share(self, units: Sequence[Unit]) -> list[Unit]:
        """Return those of a global batch's units that fall to this process."""
        by_size = sorted(units, key=lambda unit: unit.first_chunk - unit.end_chunk)
        return by_size[self.process_index :: self.num_processes]

    def _tokenize(self, unit: Unit, counts: dict[str, int]) -> TokenizedUnit:
        rows, piece_ids, pieces = self._rows(unit, counts)
        counts["split_chunks"] += sum(count > 1 for count in pieces)
        return TokenizedUnit(self._fit(piece_ids, rows, counts), rows)

    def _rows(self, unit: Unit, counts: dict[str, int]) -> tuple[list[DecoderRow], list[list[int]], list[int]]:
        """Return a unit's decoder rows and what the encoder reads for them, as `ChunkTokenizer` gives it."""
        chunks = self.store.context_chunks(unit.context, unit.first_chunk, unit.end_chunk)
        if unit.examples:
            rows = [self._reasoning_row(index, counts) for index in unit.examples]
        elif unit.num_cues:
            rows = self._cued_rows(unit, chunks, counts)
        else:
            rows = [self._understanding_row(unit, chunks, counts)]
        return rows, *self.chunk_tokenizer(chunks)

    def _reasoning_row(self, index: int, counts: dict[str, int]) -> DecoderRow:
        example = self.store.example(index)
        if not example.answers:
            raise UserError(
                f"example {example.id!r}: has no answer to train on; chunk the training data without --unlabelled"
            )
        template = self.templates.get(example.task, self.templates["default"])
        prompt = self.formatter.prompt_ids(template, example.prompt)
        return DecoderRow(prompt, self._answer_ids(example.answers[0], counts), example.id)

    def _understanding_row(self, unit: Unit, chunks: list[str], counts: dict[str, int]) -> DecoderRow:
        overlaps = self.store.chunk_overlaps(unit.context, unit.first_chunk, unit.end_chunk)
        text = chunks[0] + "".join(chunk[overlap:] for chunk, overlap in zip(chunks[1:], overlaps[1:], strict=True))
        # White space around a window is left out: encoders do not see it, so the decoder could only guess it.
        text = text.strip()
        prompt = self.formatter.prompt_ids(self.templates["understanding"])
        name = f"context {unit.context} chunks {unit.first_chunk}-{unit.end_chunk - 1}"
        return DecoderRow(prompt, self._answer_ids(text, counts), name)

    def _cued_rows(self, unit: Unit, chunks: list[str], counts: dict[str, int]) -> list[DecoderRow]:
        rows = []
        for cue in choose_cues(chunks, unit.num_cues, unit.cue_seed):
            counts["ambiguous_cues"] += not cue.is_unique
            prompt = self.formatter.prompt_ids(self.templates["cued"], cue.text)
            name = (
                f"context {unit.context} chunk {unit.first_chunk + cue.chunk} "
                f"of {unit.first_chunk}-{unit.end_chunk - 1} by {cue.text!r}"
            )
            rows.append(DecoderRow(prompt, self._answer_ids(chunks[cue.chunk].strip(), counts), name))
        return rows

    def _answer_ids(self, answer: str, counts: dict[str, int]) -> tuple[int, ...]:
        answer_ids = self.formatter.answer_ids(answer)
        if len(answer_ids) > self.limits.max_answer_tokens:
            counts["truncated_answers"] += 1
        return answer_ids[: self.limits.max_answer_tokens]

    def _fit(self, piece_ids: list[list[int]], rows: list[DecoderRow], counts: dict[str, int]) -> list[list[int]]:
        """Leave out the last chunks of a context that the decoder's window has no place for."""
        room = min(self._room(row) for row in rows)
        if len(piece_ids) > room:
            counts["trimmed_contexts"] += 1
        return piece_ids[:room]

    def _room(self, row: DecoderRow) -> int:
        """Return how many chunks the decoder's window holds beside a row's prompt and answer."""
        window, num_chunk_tokens = self.limits.decoder_window, self.limits.num_chunk_tokens
        room = (window - row.length(0)) // num_chunk_tokens
        if room >= 1:
            return room
        num_prompt_tokens = row.length(0) - len(row.answer_ids)
        most = window - num_chunk_tokens - num_prompt_tokens
        advice = f"lower data.max_answer_tokens to {most} or less"
        if most < 1:
            advice = "shorten the prompt or its template, or leave the example out of the data"
        raise NoRoomError(
            f"{row.example_id}: its prompt of {num_prompt_tokens} and answer of {len(row.answer_ids)} decoder tokens "
            f"leave no room for a chunk in a window of {window}; {advice}"
        )
