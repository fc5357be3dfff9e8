"""The batch plan: what step t trains on, as a pure function of (data, seed, t).

                      stages (curriculum)          corpus: chunks a context, prompts a context
                              |                                    |
    step t --> stage, step in the stage --> objective --> numbers of its units --> permutation of the epoch --> units

A unit is what shares one encoding: a window of consecutive chunks to restate (understanding), a window of which a
prompt names one chunk to restate (cued, a part of the understanding steps), or a context with up to
`prompts_per_context` of its prompts (reasoning). Nothing else decides what is trained on, so any process at any time
can ask for any step.
"""

import bisect
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from utils.common_utils import UserError

Objective = Literal["understanding", "cued", "reasoning"]
FARTHEST_OTHER_STEP, MOST_OTHER_STEPS = 1000, 50
"""How far `BatchPlan.units_of_others` looks, and how many batches it plans for that."""


class NoFittingPromptError(UserError):
    """A stage is to answer prompts, and none in the data is about a context of a length that the stage takes."""


@dataclass
class Stage:
    """A part of the training with its own mixture and lengths."""

    steps: int = 0
    """Optimizer steps of this stage; 0, allowed in the last stage only: all that remain."""
    reasoning_share: float = 0.5
    """Share of the stage's steps that answer prompts; the others restate chunks. Spread evenly over the stage."""
    min_window_chunks: int = 1
    """Fewest consecutive chunks to restate."""
    max_window_chunks: int = 4
    """Most consecutive chunks to restate; drawn uniformly between the two."""
    cued_share: float = 0.0
    """Share of the understanding steps that are cued: of a window's chunks the prompt names one by a word or phrase
    that no other holds, and the answer restates that one. Spread evenly; 0, as in the paper: none."""
    cued_prompts: int = 4
    """Most chunks restated of one cued window, each by a prompt of its own; the window is encoded once."""
    min_cued_chunks: int = 0
    """Fewest consecutive chunks of a cued window; 0: min_window_chunks."""
    max_cued_chunks: int = 0
    """Most consecutive chunks of a cued window; 0: max_window_chunks."""
    min_context_chunks: int = 1
    """Fewest chunks of a context whose prompts are answered."""
    max_context_chunks: int = 0
    """Most chunks of a context whose prompts are answered; 0: no limit."""
    reasoning_batch_size: int = 0
    """Contexts of a step that answers prompts, so that a stage of short contexts can take more of them than one of
    long contexts; 0: data.reasoning_batch_size."""

    def __post_init__(self):
        for key in ("reasoning_share", "cued_share"):
            if not 0 <= getattr(self, key) <= 1:
                raise UserError(f"data.stages: {key}={getattr(self, key)} must lie between 0 and 1")
        if self.cued_prompts < 1:
            raise UserError(f"data.stages: cued_prompts={self.cued_prompts} must be at least 1")
        if not 1 <= self.min_window_chunks <= self.max_window_chunks:
            raise UserError(
                f"data.stages: min_window_chunks={self.min_window_chunks} must be at least 1 and at most "
                f"max_window_chunks={self.max_window_chunks}"
            )
        least, most = self.window_limits("cued")
        if not 1 <= least <= most:
            raise UserError(
                f"data.stages: min_cued_chunks={self.min_cued_chunks} and max_cued_chunks={self.max_cued_chunks} make "
                f"windows of {least} to {most} chunks (0 stands for min_window_chunks and max_window_chunks)"
            )
        for key in ("steps", "reasoning_batch_size"):
            if getattr(self, key) < 0:
                raise UserError(f"data.stages: {key}={getattr(self, key)} must not be negative")
        if self.min_context_chunks < 1 or 0 < self.max_context_chunks < self.min_context_chunks:
            raise UserError(
                f"data.stages: min_context_chunks={self.min_context_chunks} must be at least 1 and at most "
                f"max_context_chunks={self.max_context_chunks}"
            )

    def window_limits(self, objective: Objective) -> tuple[int, int]:
        """Return the fewest and the most chunks of the windows that an objective restates."""
        if objective == "cued":
            return self.min_cued_chunks or self.min_window_chunks, self.max_cued_chunks or self.max_window_chunks
        return self.min_window_chunks, self.max_window_chunks

    @property
    def context_lengths(self) -> str:
        """The lengths of the contexts whose prompts are answered, in words."""
        return f"{self.min_context_chunks} to {self.max_context_chunks or 'any number of'} chunks"


@dataclass(frozen=True)
class Unit:
    """What shares one encoding: some chunks of a context and, for reasoning, the prompts asked about them."""

    context: int
    first_chunk: int
    end_chunk: int
    examples: tuple[int, ...] = ()
    num_cues: int = 0
    """Chunks to restate that prompts name by cues; 0: the window is restated as a whole."""
    cue_seed: int = 0
    """Decides which chunks, and by which cues."""

    def overlaps(self, other: "Unit") -> bool:
        """Whether both read one and the same chunk."""
        if self.context != other.context:
            return False
        return max(self.first_chunk, other.first_chunk) < min(self.end_chunk, other.end_chunk)


@dataclass(frozen=True)
class PlannedBatch:
    """The global batch of a step."""

    step: int
    objective: Objective
    epoch: int
    units: tuple[Unit, ...]
    prompts_per_unit: int = 1
    """Most prompts of a unit."""


class PseudoRandomPermutation:
    """A permutation of range(n) that needs no memory: four Feistel rounds on just enough bits, walking cycles.

    A value that falls outside range(n) is put through again until it falls inside (M. Luby and C. Rackoff, 1988, for
    the rounds; J. Black and P. Rogaway, 2002, for the walk).
    """

    def __init__(self, n: int, *key: object):
        self.n = n
        self.half_bits = max(1, ((max(n, 2) - 1).bit_length() + 1) // 2)
        digest = hashlib.blake2b(repr(key).encode(), digest_size=32).digest()
        self.round_keys = np.frombuffer(digest, dtype=np.uint64)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Return the permutation's values at integer positions in [0, n)."""
        values = self._rounds(np.asarray(positions, dtype=np.uint64))
        while (outside := values >= self.n).any():
            values[outside] = self._rounds(values[outside])
        return values.astype(np.int64)

    def _rounds(self, values: np.ndarray) -> np.ndarray:
        bits, mask = np.uint64(self.half_bits), np.uint64((1 << self.half_bits) - 1)
        left, right = values >> bits, values & mask
        for key in self.round_keys:
            mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ ((mixed ^ (mixed >> np.uint64(32))) & mask)
        return (left << bits) | right


class BatchPlan:
    """Plans the global batch of every step.

    Args:
        num_chunks: chunks of every context.
        example_context: context of every example (prompt with its answer).
        stages: the curriculum; the last stage lasts to the end.
        seed: decides every choice.
        understanding_batch_size: windows a step, cued or not.
        reasoning_batch_size: contexts a step, in stages that name no number of their own.
        prompts_per_context: most prompts answered from one encoding of a context.

    Raises:
        NoFittingPromptError: a stage asks for what the data do not hold.
    """

    def __init__(
        self,
        num_chunks: np.ndarray,
        example_context: np.ndarray,
        stages: Sequence[Stage],
        seed: int,
        understanding_batch_size: int,
        reasoning_batch_size: int,
        prompts_per_context: int = 1,
    ):
        if any(stage.steps == 0 for stage in stages[:-1]) or not stages:
            raise UserError("data.stages: every stage but the last needs steps above 0, and there must be one")
        self.num_chunks = np.asarray(num_chunks, dtype=np.int64)
        self.chunk_ends = np.cumsum(self.num_chunks)
        self.stages = list(stages)
        self.stage_starts = list(itertools.accumulate((stage.steps for stage in stages[:-1]), initial=0))
        self.seed = seed
        self.understanding_batch_size = understanding_batch_size
        self.reasoning_batch_size = reasoning_batch_size
        self.prompts_per_context = prompts_per_context
        self.example_context = example_context = np.asarray(example_context, dtype=np.int64)
        # Examples in the order of their contexts: those of context c lie between two neighbouring offsets.
        self.examples_by_context = np.argsort(example_context, kind="stable")
        self.example_offsets = np.searchsorted(
            example_context[self.examples_by_context], np.arange(len(self.num_chunks) + 1)
        )
        for index in range(len(stages)):
            self._check_stage(index)

    def objective(self, step: int) -> Objective:
        """Return the objective of a step: a stage's reasoning and cued steps are spread evenly over it."""
        return self._place(step)[0]

    def batch(self, step: int) -> PlannedBatch:
        """Return the global batch of a step (counted from 0)."""
        objective, earlier_steps = self._place(step)
        stage_index = self._stage_index(step)
        size = self.batch_size(objective, stage_index)[1]
        positions = np.arange(earlier_steps * size, (earlier_steps + 1) * size)
        if objective == "reasoning":
            epoch, units = self._prompts(stage_index, positions)
            return PlannedBatch(step, objective, epoch, tuple(units), self.prompts_per_context)
        epoch, units = self._windows(objective, stage_index, positions)
        num_prompts = self.stages[stage_index].cued_prompts if objective == "cued" else 1
        return PlannedBatch(step, objective, epoch, tuple(units), num_prompts)

    def units_of_others(self, step: int) -> list[Unit]:
        """Return units of the nearest step with the same objective, those that share no chunk with this step's.

        They are the same in every process, and wherever a run was resumed; empty if the steps near have no such units.
        """
        objective, own = self.objective(step), self.batch(step).units
        near = (step + sign * distance for distance in range(1, FARTHEST_OTHER_STEP + 1) for sign in (-1, 1))
        same = (other for other in near if other >= 0 and self.objective(other) == objective)
        for other in itertools.islice(same, MOST_OTHER_STEPS):
            units = [unit for unit in self.batch(other).units if not any(unit.overlaps(mine) for mine in own)]
            if units:
                return units
        return []

    def examples_answered(self) -> np.ndarray:
        """Return the examples that a stage answers if it lasts long enough, in ascending order."""
        is_answered = np.zeros(len(self.num_chunks), dtype=bool)
        for index, stage in enumerate(self.stages):
            if stage.reasoning_share > 0:
                is_answered[self._groups(index)[0]] = True
        return np.flatnonzero(is_answered[self.example_context])

    def steps_in_epoch(self, objective: Objective) -> int:
        """Return how many steps of an objective the first stage takes to go through its units once."""
        total = int(self._groups(0)[1][-1]) if objective == "reasoning" else int(self.chunk_ends[-1])
        return -(-total // self.batch_size(objective, 0)[1])

    def batch_size(self, objective: Objective, stage_index: int) -> tuple[str, int]:
        """Return the option that says how many units a stage's steps of an objective have, and the number."""
        if objective != "reasoning":
            return "data.understanding_batch_size", self.understanding_batch_size
        if own := self.stages[stage_index].reasoning_batch_size:
            return f"data.stages[{stage_index}].reasoning_batch_size", own
        return "data.reasoning_batch_size", self.reasoning_batch_size

    def _place(self, step: int) -> tuple[Objective, int]:
        """Return the objective of a step, and how many steps of it the stage has had before."""
        index = self._stage_index(step)
        stage, local = self.stages[index], step - self.stage_starts[index]
        num_reasoning = _whole(stage.reasoning_share, local)
        if _whole(stage.reasoning_share, local + 1) > num_reasoning:
            return "reasoning", num_reasoning
        num_restating = local - num_reasoning
        num_cued = _whole(stage.cued_share, num_restating)
        if _whole(stage.cued_share, num_restating + 1) > num_cued:
            return "cued", num_cued
        return "understanding", num_restating - num_cued

    def _stage_index(self, step: int) -> int:
        return bisect.bisect_right(self.stage_starts, step) - 1

    def _windows(self, objective: Objective, stage_index: int, positions: np.ndarray) -> tuple[int, list[Unit]]:
        """Every chunk of the corpus begins one window an epoch; one at a context's end reaches back instead."""
        stage, total = self.stages[stage_index], int(self.chunk_ends[-1])
        least, most = stage.window_limits(objective)
        epochs, starts = self._permuted(objective, stage_index, positions, total)
        # The words of the keys are part of what makes a run repeatable.
        key = "window" if objective == "understanding" else "cued window"
        units = []
        for position, chunk in zip(positions.tolist(), starts.tolist(), strict=True):
            context = int(np.searchsorted(self.chunk_ends, chunk, side="right"))
            num_chunks = int(self.num_chunks[context])
            width = min(least + _hashed(self.seed, stage_index, key, position) % (most - least + 1), num_chunks)
            first = min(chunk - int(self.chunk_ends[context]) + num_chunks, num_chunks - width)
            unit = Unit(context, first, first + width)
            if objective == "cued":
                cue_seed = _hashed(self.seed, stage_index, "cue", position)
                unit = dataclasses.replace(unit, num_cues=min(stage.cued_prompts, width), cue_seed=cue_seed)
            units.append(unit)
        return int(epochs[0]), units

    def _prompts(self, stage_index: int, positions: np.ndarray) -> tuple[int, list[Unit]]:
        """Every prompt of the stage's contexts is answered once an epoch, in groups that the epoch shuffles."""
        contexts, group_ends = self._groups(stage_index)
        epochs, groups = self._permuted("reasoning", stage_index, positions, int(group_ends[-1]))
        units = []
        for epoch, group in zip(epochs.tolist(), groups.tolist(), strict=True):
            place = int(np.searchsorted(group_ends, group, side="right"))
            context = int(contexts[place])
            begin, end = self.example_offsets[context : context + 2]
            first = (group - int(group_ends[place - 1] if place else 0)) * self.prompts_per_context
            within = np.arange(first, min(first + self.prompts_per_context, int(end - begin)))
            order = PseudoRandomPermutation(int(end - begin), self.seed, "prompts", epoch, context)
            examples = self.examples_by_context[begin + order(within)]
            units.append(Unit(context, 0, int(self.num_chunks[context]), tuple(examples.tolist())))
        return int(epochs[0]), units

    def _permuted(
        self, objective: Objective, stage_index: int, positions: np.ndarray, total: int
    ) -> tuple[np.ndarray, np.ndarray]:
        epochs, places = positions // total, positions % total
        values = np.empty_like(places)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            permutation = PseudoRandomPermutation(total, self.seed, objective, stage_index, int(epoch))
            values[chosen] = permutation(places[chosen])
        return epochs, values

    @functools.cache  # noqa: B019 - one entry a stage, and a plan lives as long as the run
    def _groups(self, stage_index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the contexts of a reasoning stage and, running, how many groups of prompts they make."""
        stage = self.stages[stage_index]
        num_examples = np.diff(self.example_offsets)
        most = stage.max_context_chunks or np.inf
        contexts = np.flatnonzero(
            (num_examples > 0) & (self.num_chunks >= stage.min_context_chunks) & (self.num_chunks <= most)
        )
        return contexts, np.cumsum(-(-num_examples[contexts] // self.prompts_per_context))

    def _check_stage(self, index: int) -> None:
        stage = self.stages[index]
        if stage.reasoning_share > 0 and not len(self._groups(index)[0]):
            raise NoFittingPromptError(
                f"data.stages[{index}]: no prompt in the data is about a context of {stage.context_lengths}; set "
                "reasoning_share to 0 or change the limits"
            )


def _whole(share: float, num_steps: int) -> int:
    """Return how many of so many first steps a share of them makes."""
    return int(num_steps * share + 1e-9)


def _hashed(*key: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little")
