"""What each mode of an evaluation gives the decoder to read: a prompt, and the context in the mode's form."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dataset.store import ChunkStore, Example
from model.config import E2LLMConfig
from model.generation import DecoderInput, EncodedContext, check_length, chunk_token_head, token_head
from model.pro_model import E2LLM
from model.rope_scaling import check_scalable, rope_factor
from pefts.baselines import BASELINES
from pefts.eval_args import EvalConfig, EvalTask
from pefts.eval_contexts import EvalContext, encode_together
from pefts.eval_plan import open_eval_store
from utils.common_utils import UserError, read_text
from utils.tokenization import PromptFormatter, PromptIds, check_template

LONGEST = 4
"""Contexts of a task whose tokens are counted before an evaluation begins: those of the most chunks."""


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


def check_files(config: EvalConfig, model_config: E2LLMConfig) -> None:
    """Look at the stores and templates that an evaluation names, before the model is loaded and prompts are answered.

    Raises:
        UserError: one is missing, or does not fit the model.
    """
    for index, task in enumerate(config.tasks):
        open_eval_store(task.data, f"tasks[{index}].data", model_config)
        for key in ("prompt_file", "baseline_prompt_file"):
            _own_template(task, key)
    if config.reconstruction.data:
        open_eval_store(config.reconstruction.data, "reconstruction.data", model_config)


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

    def check(
        self, task: EvalTask, modes: Sequence[str], store: ChunkStore, examples: Mapping[int, Sequence[Example]]
    ) -> None:
        """Refuse what cannot be answered before hours have gone into what can.

        Chunk tokens are taken for one set a chunk, and counted piece by piece in the longest contexts alone.

        Args:
            examples: the prompts of each context.

        Raises:
            UserError: a prompt with its context and answer does not fit its window, or a context needs a scaling that
                the decoder's RoPE has not.
        """
        contexts = [EvalContext(self.model, store, index, of_context) for index, of_context in examples.items()]
        contexts.sort(key=lambda context: int(store.num_chunks[context.index]), reverse=True)
        for rank, context in enumerate(contexts):
            if "model" in modes or any("_to_budget" in mode for mode in modes):
                room = self._room(task, context, trained=True)
                slots = int(store.num_chunks[context.index]) * self.model.config.num_chunk_tokens
                slots = context.num_slots if rank < LONGEST else slots
                if "model" in modes and slots > room and self.config.long_contexts == "refuse":
                    raise UserError(
                        f"{_name(task, context.examples[0])}: the context takes {slots} chunk tokens, which with its "
                        f"prompt and max_new_tokens={task.max_new_tokens} exceed the decoder's window of "
                        f"{self.model.decoder_window}; {_TRIM}"
                    )
            if not set(modes).isdisjoint(BASELINES):
                room = self._room(task, context, trained=False)
                if "full" in modes and rank < LONGEST and len(context.token_ids) > room:
                    check_scalable(self.model.causal_lm, self.model.native_decoder_window)

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
            way_out = _TRIM if mode == "model" else f"lower tasks: max_new_tokens={task.max_new_tokens}"
            check_length(row, _name(task, example), task.max_new_tokens, model.decoder_window, way_out)
            slots = encoded.chunk_tokens.shape[0] * encoded.chunk_tokens.shape[1]
            yield Question(context, example, row, slots, trimmed=trimmed)

    def _baseline_questions(
        self, task: EvalTask, mode: str, pairs: Sequence[tuple[EvalContext, Example]]
    ) -> Iterator[Question]:
        model, heads = self.model, {}
        for context, example in pairs:
            ids = self._base_prompt_ids(task, example)
            room = self._room(task, context, trained=False)
            if "_to_budget" in mode:
                room = min(room, self._room(task, context, trained=True))
            context_ids = BASELINES[mode](context, example.prompt, room)
            key = (ids.prefix_ids, tuple(context_ids))
            if key not in heads:
                heads[key] = token_head(model, [*ids.prefix_ids, *context_ids])
            row = DecoderInput(heads[key], ids.suffix_ids)
            factor = 1
            if mode == "full":
                factor = rope_factor(row.num_positions + task.max_new_tokens, model.native_decoder_window)
            yield Question(context, example, row, len(context_ids), factor, key=(*key, ids.suffix_ids, factor))

    def _base_prompt_ids(self, task: EvalTask, example: Example) -> PromptIds:
        template = self.base_templates[task.name] or self.template(task.name, example)
        return self.base_formatter.prompt_ids(template, example.prompt)

    def _room(self, task: EvalTask, context: EvalContext, trained: bool) -> int:
        """Return the decoder positions that a context may take beside its longest prompt and an answer: in the trained
        model's window, or in that of the decoder alone."""
        longest = 0
        for example in context.examples:
            if trained:
                ids = self.model.formatter.prompt_ids(self.template(task.name, example), example.prompt)
            else:
                ids = self._base_prompt_ids(task, example)
            longest = max(longest, len(ids.prefix_ids) + len(ids.suffix_ids))
        window = self.model.decoder_window if trained else self.model.native_decoder_window
        room = window - longest - task.max_new_tokens
        if room < 1:
            raise UserError(
                f"{_name(task, context.examples[0])}: prompt and answer leave no room for the context in a window of "
                f"{window}; lower tasks: max_new_tokens={task.max_new_tokens}"
            )
        return room


_TRIM = "pass --long_contexts trim to leave out what has no place, or leave the context out"


def _name(task: EvalTask, example: Example) -> str:
    return f"task {task.name!r}, id {example.id!r}"


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
