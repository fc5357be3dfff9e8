"""Answering the prompts of evaluation tasks in every mode, on any number of processes; `evaluate` scores them.

the plan's units of work ── dealt to the processes
for the base decoder's modes, then for the trained model's: for each unit: for each mode: answer what is left
"""

import dataclasses
import functools
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence, Set
from pathlib import Path
from typing import get_args

import torch
from tqdm import tqdm

from dataset.store import Example
from model.generation import DecoderInput, GeneratedAnswer, answer_inputs, encode_chunks, token_head
from model.pro_model import E2LLM
from model.retrieval import embed_texts
from model.rope_scaling import scaled_rope
from pefts.baselines import BASELINES
from pefts.eval_args import EvalConfig, EvalTask, Mode
from pefts.eval_contexts import EvalContext
from pefts.eval_plan import EvalPlan, Unit
from pefts.eval_questions import Question, QuestionMaker
from pefts.prediction_files import PredictionFiles
from pefts.resource_meter import ResourceMeter
from utils.common_utils import UserError, atomic_write_text, read_json

SETTINGS_FILE = "settings.json"
TRAINED_MODES = tuple(mode for mode in get_args(Mode) if mode not in BASELINES)

logger = logging.getLogger(__name__)


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
        self.plan = EvalPlan(config, model)
        self.questions = QuestionMaker(config, model)
        for task in config.tasks:
            self.questions.check(
                task, self.plan.modes(task), self.plan.stores[task.name], self.plan.examples[task.name]
            )
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

    def _work(self, modes: Sequence[str]) -> list[tuple[Unit, str, set[str]]]:
        """Return this process's units of work with, for each mode, the ids of the prompts left."""
        work = []
        for unit in self.plan.units:
            ids = {example.id for context in unit.contexts for example in self.plan.examples[unit.task.name][context]}
            of_unit = []
            for mode in self.plan.modes(unit.task):
                left = {example_id for example_id in ids if (unit.task.name, mode, example_id) not in self.done}
                if mode in modes and left:
                    of_unit.append((unit, mode, left))
            if of_unit:
                work.append(of_unit)
        return [entry for of_unit in work[self.process_index :: self.num_processes] for entry in of_unit]

    def _answer_units(self, work: Sequence[tuple[Unit, str, set[str]]], name: str) -> None:
        if self.config.timed_prompts:
            self._warm_up({mode for _, mode, _ in work})
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
        questions = self.questions.make(task, mode, pairs)
        known = self.known_answers if reuse else {}
        answered = [(question, known[question.key]) for question in questions if question.key in known]
        questions = [question for question in questions if question.key not in known]
        for factor in sorted({question.rope_factor for question in questions}):
            of_factor = [question for question in questions if question.rope_factor == factor]
            preparation = time.perf_counter() - started
            with scaled_rope(self.model.causal_lm, factor, self.model.native_decoder_window):
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

    def _record(self, task: EvalTask, mode: str, question: Question, answer: GeneratedAnswer) -> dict:
        context, example = question.context, question.example
        store = self.plan.stores[task.name]
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
            "context_tokens": len(context.token_ids),
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

    def _warm_up(self, modes: Set[str]) -> None:
        """Answer something, and read it with the encoder as the modes do, so that no clock runs while libraries get
        ready."""
        text = ("ready " * self.model.config.chunk_size)[: self.model.config.chunk_size]
        if "model" in modes:
            encode_chunks(self.model, [text])
        if any(mode.startswith("retrieval") for mode in modes):
            embed_texts(self.model, [text])
        head = token_head(self.model, self.model.formatter.prompt_ids("{context} {prompt}", "ready").suffix_ids)
        answer_inputs(self.model, [DecoderInput(head, (self.model.decoder_tokenizer.eos_token_id,))], max_new_tokens=2)

    def _open_contexts(self, unit: Unit) -> list[EvalContext]:
        store, examples = self.plan.stores[unit.task.name], self.plan.examples[unit.task.name]
        return [
            EvalContext(self.model, store, index, examples[index], timed=index in unit.timed) for index in unit.contexts
        ]

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
                    "data": self.plan.stores[task.name].fingerprint,
                    "max_new_tokens": task.max_new_tokens,
                    "template": self.questions.templates[task.name],
                    "baseline_template": self.questions.base_templates[task.name],
                }
                for task in self.config.tasks
            },
        }


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
