"""What each mode of an evaluation gives the decoder to read: a prompt, and the context in the mode's form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dataset.store import Example
from model.generation import DecoderInput, EncodedContext, check_length, chunk_token_head, token_head
from model.pro_model import E2LLM
from model.rope_scaling import rope_factor
from pefts.baselines import BASELINES
from pefts.eval_args import EvalConfig, EvalTask
from pefts.eval_contexts import EvalContext, encode_together
from utils.common_utils import UserError, read_text
from utils.tokenization import PromptFormatter, PromptIds, check_template


@dataclass(frozen=True)
class Question:
    """A prompt in the form that a mode gives to the decoder."""

    context: EvalContext
    example: Example
    decoder_input: DecoderInput
    context_positions: int
    """Decoder positions that stand for the context."""
    rope_factor: int = 1
    trimmed: int = 0
    """Chunk tokens left out because the decoder's window has no place for them."""
    key: tuple | None = None
    """In the base decoder's modes, all that the answer depends on."""


class QuestionMaker:
    """Makes the questions of every task and mode.

    Raises:
        UserError: a task's template cannot be read or lacks a field.
    """

    def __init__(self, config: EvalConfig, model: E2LLM):
        self.config = config
        self.model = model
        self.templates = {task.name: _own_template(task, "prompt_file") for task in config.tasks}
        self.base_templates = {task.name: _own_template(task, "baseline_prompt_file") for task in config.tasks}
        tokenizer = model.decoder_tokenizer
        self.base_formatter = PromptFormatter(tokenizer, use_chat_template=bool(tokenizer.chat_template))

    def make(self, task: EvalTask, mode: str, pairs: Sequence[tuple[EvalContext, Example]]) -> list[Question]:
        """Make the questions of prompts, each with its context."""
        make = self._baseline_questions if mode in BASELINES else self._trained_questions
        return list(make(task, mode, pairs))

    def template(self, task: str, example: Example) -> str:
        """Return the prompt template of an example: the evaluation task's own, or that of the model's training."""
        return self.templates[task] or self.model.config.template(example.task)

    def _trained_questions(
        self, task: EvalTask, mode: str, pairs: Sequence[tuple[EvalContext, Example]]
    ) -> Iterator[Question]:
        if mode == "model":
            encode_together(self.model, list(dict.fromkeys(context for context, _ in pairs)))
        model, heads = self.model, {}
        nothing = EncodedContext(
            torch.zeros(0, model.config.num_chunk_tokens, model.chunk_encoder.adapter.projection.out_features), 0
        )
        for context, example in pairs:
            ids = model.formatter.prompt_ids(self.template(task.name, example), example.prompt)
            encoded, trimmed = (context.encoded, 0) if mode == "model" else (nothing, 0)
            if mode == "model" and self.config.long_contexts == "trim":
                encoded, trimmed = _trim(encoded, self._room(task, context, trained=True))
            key = (id(context), ids.prefix_ids)
            if key not in heads:
                heads[key] = chunk_token_head(model, ids.prefix_ids, encoded)
            row = DecoderInput(heads[key], ids.suffix_ids)
            check_length(row, example.prompt, task.max_new_tokens, model.decoder_window)
            slots = encoded.chunk_tokens.shape[0] * encoded.chunk_tokens.shape[1]
            yield Question(context, example, row, slots, trimmed=trimmed)

    def _baseline_questions(
        self, task: EvalTask, mode: str, pairs: Sequence[tuple[EvalContext, Example]]
    ) -> Iterator[Question]:
        model, heads = self.model, {}
        for context, example in pairs:
            ids = self._base_prompt_ids(task, example)
            context_ids = BASELINES[mode](context, example.prompt, self._room(task, context, trained=False))
            key = (ids.prefix_ids, tuple(context_ids))
            if key not in heads:
                heads[key] = token_head(model, [*ids.prefix_ids, *context_ids])
            row = DecoderInput(heads[key], ids.suffix_ids)
            factor = 1
            if mode == "full":
                factor = rope_factor(row.num_positions + task.max_new_tokens, model.decoder_window)
            yield Question(context, example, row, len(context_ids), factor, key=(*key, ids.suffix_ids, factor))

    def _base_prompt_ids(self, task: EvalTask, example: Example) -> PromptIds:
        template = self.base_templates[task.name] or self.template(task.name, example)
        return self.base_formatter.prompt_ids(template, example.prompt)

    def _room(self, task: EvalTask, context: EvalContext, trained: bool) -> int:
        """Return the decoder positions that a context may take beside its longest prompt and an answer."""
        longest = 0
        for example in context.examples:
            if trained:
                ids = self.model.formatter.prompt_ids(self.template(task.name, example), example.prompt)
            else:
                ids = self._base_prompt_ids(task, example)
            longest = max(longest, len(ids.prefix_ids) + len(ids.suffix_ids))
        room = self.model.decoder_window - longest - task.max_new_tokens
        if room < 1:
            raise UserError(
                f"task {task.name!r}, id {context.examples[0].id!r}: prompt and answer leave no room for the context "
                f"in a window of {self.model.decoder_window}; lower tasks: max_new_tokens={task.max_new_tokens}"
            )
        return room


def _own_template(task: EvalTask, key: str) -> str | None:
    path = getattr(task, key)
    if path is None:
        return None
    source = f"tasks: {key}={path!r}"
    template = read_text(Path(path), source).rstrip("\n")
    check_template(template, source, needs_prompt=True)
    return template


def _trim(encoded: EncodedContext, room: int) -> tuple[EncodedContext, int]:
    """Leave out chunk tokens in the middle where there is no room for all; returns how many too."""
    num_chunks, num_slots = encoded.chunk_tokens.shape[:2]
    kept = room // num_slots
    if num_chunks <= kept:
        return encoded, 0
    tokens = torch.cat([encoded.chunk_tokens[: kept - kept // 2], encoded.chunk_tokens[num_chunks - kept // 2 :]])
    return EncodedContext(tokens, encoded.num_characters), (num_chunks - kept) * num_slots
