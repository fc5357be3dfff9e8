"""Answering the prompts of evaluation tasks in every mode, on any number of processes; `evaluate` scores them.

    task ── contexts, shortest first ── units of work (contexts with all their prompts) ── dealt to the processes
    for the base decoder's modes, then for the trained model's: for each unit: for each mode: answer what is left

The units are a function of data and options, so an evaluation goes on where it stopped on any number of processes.
"""

import dataclasses
import functools
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from tqdm import tqdm

from dataset.store import ChunkStore, Example
from model.config import E2LLMConfig
from model.generation import (
    DecoderInput,
    EncodedContext,
    GeneratedAnswer,
    answer_inputs,
    check_length,
    chunk_token_head,
    token_head,
)
from model.pro_model import E2LLM
from model.rope_scaling import rope_factor, scaled_rope
from pefts.baselines import BASELINES
from pefts.eval_args import EvalConfig, EvalTask, Mode
from pefts.eval_contexts import EvalContext, encode_together
from pefts.prediction_files import PredictionFiles
from pefts.resource_meter import ResourceMeter
from utils.common_utils import UserError, atomic_write_text, read_json, read_text
from utils.tokenization import PromptFormatter, check_template

SETTINGS_FILE = "settings.json"
TRAINED_MODES = tuple(mode for mode in get_args(Mode) if mode not in BASELINES)

logger = logging.getLogger(__name__)


def open_eval_store(paths: list[str], key: str, model_config: E2LLMConfig) -> ChunkStore:
    """Open stores and check that they were chunked as the model was trained."""
    for path in paths:
        if Path(path).is_file():
            raise UserError(
                f"{key}={path!r}: a file; chunk it first: python preprocess/preshuffle_data_and_chunk.py "
                f"--input {path} --output_dir STORE --chunk_size {model_config.chunk_size} "
                f"--chunk_overlap {model_config.chunk_overlap}"
            )
    store = ChunkStore.open(paths)
    made = (store.chunk_size, store.chunk_overlap)
    trained = (model_config.chunk_size, model_config.chunk_overlap)
    if made != trained:
        raise UserError(f"{key}={paths}: chunked with (size, overlap) {made}, and the model was trained with {trained}")
    return store


@dataclass(frozen=True)
class Unit:
    """Contexts of a task that are answered together, by one process."""

    task: EvalTask
    contexts: tuple[int, ...]
    """Indices in the task's store."""
    timed: frozenset[int]
    """Those whose first prompt is answered alone, with the clock running."""


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


class Evaluator:
    """Answers the prompts of tasks and appends them to the prediction files; what is there already is not done again.

    Args:
        process_index, num_processes: which part of the work to do. Process 0 prepares the folder when it is made and
            joins the files with `finish`; the others are to `run` after the one and to end before the other.

    Raises:
        UserError: the folder holds predictions made with other settings, or a task's data do not fit the model.
    """

    def __init__(self, config: EvalConfig, model: E2LLM, process_index: int = 0, num_processes: int = 1):
        self.config = config
        self.model = model
        self.process_index = process_index
        self.num_processes = num_processes
        self.folder = Path(config.output_dir)
        self.files = PredictionFiles(self.folder, process_index, num_processes)
        self.stores: dict[str, ChunkStore] = {}
        self.examples: dict[str, dict[int, list[Example]]] = {}
        for index, task in enumerate(config.tasks):
            self.stores[task.name] = open_eval_store(task.data, f"tasks[{index}].data", model.config)
            self.examples[task.name] = self._examples_by_context(task, f"tasks[{index}].data")
        self.templates = {task.name: _own_template(task, "prompt_file") for task in config.tasks}
        self.base_templates = {task.name: _own_template(task, "baseline_prompt_file") for task in config.tasks}
        self.units = [unit for task in config.tasks for unit in self._plan(task)]
        self._check_chunk_counts()
        tokenizer = model.decoder_tokenizer
        self.base_formatter = PromptFormatter(tokenizer, use_chat_template=bool(tokenizer.chat_template))
        self.context_tokens: dict[tuple[str, int], int] = {}
        self.known_answers: dict[tuple, GeneratedAnswer] = {}
        """Of the unit at work, by `Question.key`: where a context fits, several modes ask the base decoder the same."""
        if process_index == 0:
            self._prepare_folder()

    @functools.cached_property
    def done(self) -> set[tuple[str, str, str]]:
        """What is answered already: (task, mode, id)."""
        done = self.files.answered()
        if done and self.process_index == 0:
            logger.info("%s: %d predictions are there already", self.files.path, len(done))
        return done

    def run(self) -> None:
        """Answer this process's share of what is not answered yet; the base decoder's modes come first, since LoRA may
        be folded into the weights for the others."""
        self.files.lock(alone=False)
        baselines = self._work(tuple(BASELINES))
        if baselines:
            if self.model.config.decoder_lora_rank == 0:
                logger.warning("the decoder has no LoRA of its own: the baselines run it as the checkpoint has it")
            with self.model.base_weights():
                self._answer_units(baselines, "baselines")
        trained = self._work(TRAINED_MODES)
        if trained:
            if self.config.fold_lora:
                self.model.fold_lora()
            self._answer_units(trained, "model")

    def finish(self) -> None:
        """Join the files of all processes; for process 0, when the others have ended."""
        self.files.join()
        self.files.unlock()

    def modes(self, task: EvalTask) -> list[str]:
        """Return the modes of a task."""
        return task.modes or self.config.modes

    def _work(self, modes: Sequence[str]) -> list[tuple[Unit, str, set[str]]]:
        """Return this process's units of work with, for each mode, the ids of the prompts left."""
        work = []
        for unit in self.units:
            ids = {example.id for context in unit.contexts for example in self.examples[unit.task.name][context]}
            of_unit = []
            for mode in self.modes(unit.task):
                left = {example_id for example_id in ids if (unit.task.name, mode, example_id) not in self.done}
                if mode in modes and left:
                    of_unit.append((unit, mode, left))
            if of_unit:
                work.append(of_unit)
        return [entry for of_unit in work[self.process_index :: self.num_processes] for entry in of_unit]

    def _answer_units(self, work: Sequence[tuple[Unit, str, set[str]]], name: str) -> None:
        if self.config.timed_prompts:
            self._warm_up()
        share = "" if self.num_processes == 1 else f", a {self.num_processes}th of the prompts"
        progress = tqdm(total=sum(len(left) for _, _, left in work), disable=self.process_index > 0, unit="prompt")
        contexts: list[EvalContext] = []
        previous = None
        with progress:
            for unit, mode, left in work:
                progress.set_description(f"{unit.task.name} {mode}{share}")
                if unit is not previous:
                    # What was encoded for a unit serves all its modes, and goes with it.
                    contexts, previous = self._open_contexts(unit), unit
                    self.known_answers.clear()
                for records in self._answer_unit(unit.task, mode, contexts, left):
                    self.files.append(records)
                    progress.update(len(records))
        logger.info("%s: %d prompts answered", name, progress.n)

    def _answer_unit(
        self, task: EvalTask, mode: str, contexts: Sequence[EvalContext], left: set[str]
    ) -> Iterator[list[dict]]:
        if self.config.sampling.do_sample:
            # What is drawn depends on what it is drawn with, so the whole unit is drawn again.
            asked = {example.id for context in contexts for example in context.examples}
            key = f"{self.config.sampling.seed} {task.name} {mode} {contexts[0].examples[0].id}"
            torch.manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little"))
        else:
            asked = left
        for context in contexts:
            if context.timed and context.examples[0].id in asked:
                records = [self._timed_record(task, mode, context)]
                yield [record for record in records if record["id"] in left]
        together = [
            (context, example)
            for context in contexts
            for example in context.examples[1 if context.timed else 0 :]
            if example.id in asked
        ]
        if together:
            answered = self._answer(task, mode, together, reuse=not self.config.sampling.do_sample)
            records = [self._record(task, mode, *of_prompt) for of_prompt in answered]
            yield [record for record in records if record["id"] in left]

    def _timed_record(self, task: EvalTask, mode: str, context: EvalContext) -> dict:
        context.forget()
        with ResourceMeter(self.model.device) as meter:
            ((question, answer),) = self._answer(task, mode, [(context, context.examples[0])])
        timing = {"first_token_seconds": round(answer.first_token_seconds, 4), "seconds": round(meter.seconds, 4)}
        return self._record(task, mode, question, answer) | {"timing": timing | {"peak_bytes": meter.peak_bytes}}

    def _answer(
        self, task: EvalTask, mode: str, pairs: Sequence[tuple[EvalContext, Example]], reuse: bool = False
    ) -> list[tuple[Question, GeneratedAnswer]]:
        """Answer prompts; `reuse` takes what the same question to the base decoder gave in another mode."""
        started = time.perf_counter()
        if mode in BASELINES:
            questions = list(self._baseline_questions(task, mode, pairs))
        else:
            questions = list(self._trained_questions(task, mode, pairs))
        known = self.known_answers if reuse else {}
        answered = [(question, known[question.key]) for question in questions if question.key in known]
        questions = [question for question in questions if question.key not in known]
        for factor in sorted({question.rope_factor for question in questions}):
            of_factor = [question for question in questions if question.rope_factor == factor]
            preparation = time.perf_counter() - started
            with scaled_rope(self.model.causal_lm, factor, self.model.decoder_window):
                answers = answer_inputs(
                    self.model,
                    [question.decoder_input for question in of_factor],
                    max_new_tokens=task.max_new_tokens,
                    max_positions=self.config.max_positions,
                    **_sampling_options(self.config),
                )
            for question, answer in zip(of_factor, answers, strict=True):
                seconds = preparation + answer.first_token_seconds
                answered.append((question, dataclasses.replace(answer, first_token_seconds=seconds)))
                if question.key is not None:
                    self.known_answers[question.key] = answer
        return answered

    def _trained_questions(
        self, task: EvalTask, mode: str, pairs: Sequence[tuple[EvalContext, Example]]
    ) -> Iterator[Question]:
        if mode == "model":
            encode_together(self.model, list(dict.fromkeys(context for context, _ in pairs)))
        model, heads = self.model, {}
        nothing = EncodedContext(torch.zeros(0, model.config.num_chunk_tokens, _decoder_width(model)), 0)
        for context, example in pairs:
            template = self.templates[task.name] or model.config.template(example.task)
            ids = model.formatter.prompt_ids(template, example.prompt)
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

    def _base_prompt_ids(self, task: EvalTask, example: Example):
        own = self.base_templates[task.name] or self.templates[task.name]
        return self.base_formatter.prompt_ids(own or self.model.config.template(example.task), example.prompt)

    def _room(self, task: EvalTask, context: EvalContext, trained: bool) -> int:
        """Return the decoder positions that a context may take beside its longest prompt and an answer."""
        longest = 0
        for example in context.examples:
            if trained:
                template = self.templates[task.name] or self.model.config.template(example.task)
                ids = self.model.formatter.prompt_ids(template, example.prompt)
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

    def _record(self, task: EvalTask, mode: str, question: Question, answer: GeneratedAnswer) -> dict:
        context, example = question.context, question.example
        store = self.stores[task.name]
        key = (task.name, context.index)
        if key not in self.context_tokens:
            self.context_tokens[key] = len(context.token_ids)
        record = {
            "task": task.name,
            "id": example.id,
            "mode": mode,
            "prompt": example.prompt,
            "prediction": answer.text,
            "references": example.answers,
            "truncated": not answer.finished,
            "num_chunks": int(store.num_chunks[context.index]),
            "num_chunk_tokens": question.context_positions if mode == "model" else 0,
            "context_tokens": self.context_tokens[key],
            "context_chars": len(store.context_text(context.index)),
            "context_positions": question.context_positions,
            "decoder_positions": question.decoder_input.num_positions,
            "meta": example.meta,
        }
        if question.trimmed:
            record["trimmed_chunk_tokens"] = question.trimmed
        if question.rope_factor > 1:
            record["rope_factor"] = question.rope_factor
        return record

    def _warm_up(self) -> None:
        """Answer something, so that no clock runs while libraries get ready."""
        head = token_head(self.model, self.model.formatter.prompt_ids("{context} {prompt}", "ready").suffix_ids)
        answer_inputs(self.model, [DecoderInput(head, (self.model.decoder_tokenizer.eos_token_id,))], max_new_tokens=2)

    def _open_contexts(self, unit: Unit) -> list[EvalContext]:
        store, examples = self.stores[unit.task.name], self.examples[unit.task.name]
        return [
            EvalContext(self.model, store, index, examples[index], timed=index in unit.timed) for index in unit.contexts
        ]

    def _plan(self, task: EvalTask) -> Iterator[Unit]:
        """Cut a task into units of about `batch_size` prompts and at most `max_positions` chunk tokens; a context that
        exceeds them alone is a unit of its own."""
        num_chunks, by_context = self.stores[task.name].num_chunks, self.examples[task.name]
        # Shortest first, so that a unit holds similar lengths.
        order = sorted(by_context, key=lambda context: (int(num_chunks[context]), context))
        seen: Counter[int] = Counter()
        timed = set()
        for context in order:
            power = int(num_chunks[context]).bit_length()
            if seen[power] < self.config.timed_prompts:
                timed.add(context)
            seen[power] += 1
        limits = (self.config.batch_size, self.config.max_positions)
        unit: list[int] = []
        size = (0, 0)
        for context in order:
            own = (len(by_context[context]), int(num_chunks[context]) * self.model.config.num_chunk_tokens)
            if unit and (size[0] + own[0] > limits[0] or size[1] + own[1] > limits[1]):
                yield Unit(task, tuple(unit), frozenset(timed & set(unit)))
                unit, size = [], (0, 0)
            unit.append(context)
            size = (size[0] + own[0], size[1] + own[1])
        yield Unit(task, tuple(unit), frozenset(timed & set(unit)))

    def _examples_by_context(self, task: EvalTask, key: str) -> dict[int, list[Example]]:
        """Return a task's examples by context, and check that no two have the same id."""
        store = self.stores[task.name]
        by_context: dict[int, list[Example]] = {}
        for index, context in enumerate(store.example_context.tolist()):
            if task.max_contexts and context not in by_context and len(by_context) == task.max_contexts:
                break
            by_context.setdefault(context, []).append(store.example(index))
        counts = Counter(example.id for examples in by_context.values() for example in examples)
        if not counts:
            raise UserError(f"{key}={task.data}: holds no prompt to answer")
        example_id, count = counts.most_common(1)[0]
        if count > 1:
            raise UserError(f"{key}={task.data}: {count} examples have the id {example_id!r}; give each its own `id`")
        return by_context

    def _check_chunk_counts(self) -> None:
        """Refuse contexts that cannot fit before hours have gone into those that do."""
        for index, task in enumerate(self.config.tasks):
            if "model" not in self.modes(task) or self.config.long_contexts == "trim":
                continue
            chunks = max(int(self.stores[task.name].num_chunks[context]) for context in self.examples[task.name])
            slots = chunks * self.model.config.num_chunk_tokens
            if slots + task.max_new_tokens >= self.model.decoder_window:
                raise UserError(
                    f"tasks[{index}].data={task.data}: the longest context takes {slots} chunk tokens, which with "
                    f"max_new_tokens={task.max_new_tokens} exceed the decoder's window of {self.model.decoder_window}; "
                    "pass --long_contexts trim to leave out what has no place, or leave the context out"
                )

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_dir={self.config.output_dir!r}: cannot be written to ({error.strerror})") from None
        self.files.lock(alone=True)
        try:
            self._check_settings()
        except UserError:
            self.files.unlock()
            raise
        self.files.join()
        self.files.lock(alone=False)

    def _check_settings(self) -> None:
        """Check that the predictions that are there were made with the same settings; tasks may be added to them."""
        settings, path = self._settings(), self.folder / SETTINGS_FILE
        if self.files.existing():
            saved = read_json(path) if path.exists() else {}
            saved_tasks = saved.get("tasks", {})
            differing = [key for key in settings if key != "tasks" and saved.get(key) != settings[key]]
            differing += [
                f"task {name!r}" for name, task in settings["tasks"].items() if saved_tasks.get(name, task) != task
            ]
            if not differing:
                settings["tasks"] = saved_tasks | settings["tasks"]
            elif self.config.overwrite:
                self.files.remove()
            else:
                raise UserError(
                    f"{self.files.path}: made with other settings ({', '.join(differing)} changed; see "
                    f"{SETTINGS_FILE}); choose another output_dir or pass --overwrite true"
                )
        atomic_write_text(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    def _settings(self) -> dict:
        """Return what predictions depend on."""
        weights = hashlib.sha256()
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                weights.update(name.encode())
                weights.update(parameter.detach().float().cpu().numpy().tobytes())
        return {
            "checkpoint": str(Path(self.config.checkpoint)),
            "weights": weights.hexdigest(),
            "dtype": str(self.model.resolved_compute.dtype),
            "sampling": dataclasses.asdict(self.config.sampling),
            "long_contexts": self.config.long_contexts,
            "tasks": {
                task.name: {
                    "data": self.stores[task.name].fingerprint,
                    "max_new_tokens": task.max_new_tokens,
                    "template": self.templates[task.name],
                    "baseline_template": self.base_templates[task.name],
                }
                for task in self.config.tasks
            },
        }


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


def _decoder_width(model: E2LLM) -> int:
    return model.chunk_encoder.adapter.projection.out_features


def _sampling_options(config: EvalConfig) -> dict:
    options = config.sampling
    if not options.do_sample:
        return {"num_beams": options.num_beams}
    return {
        "do_sample": True,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "num_beams": options.num_beams,
    }
