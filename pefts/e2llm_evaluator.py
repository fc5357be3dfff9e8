"""Answering the prompts of evaluation tasks, and measuring reconstruction; scoring is the business of `evaluate`."""

import dataclasses
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from dataset.batch_plan import BatchPlan, Stage
from dataset.dataset import RowLimits, StepDataset
from dataset.store import ChunkStore, Example
from model.config import E2LLMConfig
from model.generation import EncodedContext, GeneratedAnswer, encode_chunks, generate
from model.pro_model import E2LLM
from pefts.e2llm_args import EvalConfig, EvalTask
from utils.common_utils import UserError, atomic_write_text, read_json, read_jsonl, read_text
from utils.tokenization import check_template

PREDICTIONS_FILE = "predictions.jsonl"
SETTINGS_FILE = "settings.json"

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


@dataclass
class Item:
    """A context of a task with its prompts, and the chunk tokens they read once it is encoded."""

    context_index: int
    examples: list[Example]
    encoded: EncodedContext | None = None


class Evaluator:
    """Answers the prompts of tasks and appends them to predictions.jsonl; what is there already is not done again.

    Raises:
        UserError: the folder holds predictions made with other settings, or a task's data do not fit the model.
    """

    def __init__(self, config: EvalConfig, model: E2LLM):
        self.config = config
        self.model = model
        self.folder = Path(config.output_dir)
        self.path = self.folder / PREDICTIONS_FILE
        self.stores = {
            task.name: open_eval_store(task.data, f"tasks[{index}].data", model.config)
            for index, task in enumerate(config.tasks)
        }
        self.examples = {
            task.name: self._examples_by_context(task, f"tasks[{index}].data")
            for index, task in enumerate(config.tasks)
        }
        self.templates = {task.name: self._template(task) for task in config.tasks}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"output_dir={config.output_dir!r}: cannot be written to ({error.strerror})") from None
        self._check_settings()
        self.done = self._read_done()

    def run(self) -> None:
        """Answer what is not answered yet."""
        for task in self.config.tasks:
            for mode in self.config.modes:
                self._run_task(task, mode)

    def _run_task(self, task: EvalTask, mode: str) -> None:
        num_chunks = self.stores[task.name].num_chunks
        by_context = self.examples[task.name]
        # Shortest first, so that batches hold similar lengths.
        items = [Item(context, by_context[context]) for context in sorted(by_context, key=lambda c: int(num_chunks[c]))]
        total = sum(len(item.examples) for item in items)
        with open(self.path, "a", encoding="utf-8") as file, tqdm(total=total, desc=f"{task.name} {mode}") as progress:
            for batch in _batches(items, self.config.batch_size):
                left = {example.id for item in batch for example in item.examples}
                left -= {example_id for example_id in left if (task.name, mode, example_id) in self.done}
                if left:
                    # The whole batch, even where some of it is done: what is drawn depends on what it is drawn with.
                    self._encode(task, mode, batch)
                    records = [record for record in self._answer(task, mode, batch) if record["id"] in left]
                    file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
                    file.flush()
                progress.update(sum(len(item.examples) for item in batch))

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

    def _encode(self, task: EvalTask, mode: str, batch: list[Item]) -> None:
        """Encode the contexts of a batch together; one that an earlier batch encoded is not encoded again."""
        store, waiting = self.stores[task.name], [item for item in batch if item.encoded is None]
        chunks = [store.context_chunks(item.context_index) if mode == "model" else [] for item in waiting]
        tokens, pieces = encode_chunks(self.model, [chunk for of_context in chunks for chunk in of_context])
        first_chunk = first_piece = 0
        for item, of_context in zip(waiting, chunks, strict=True):
            end_piece = first_piece + sum(pieces[first_chunk : first_chunk + len(of_context)])
            item.encoded = EncodedContext(tokens[first_piece:end_piece], len(store.context_text(item.context_index)))
            first_chunk, first_piece = first_chunk + len(of_context), end_piece

    def _answer(self, task: EvalTask, mode: str, batch: list[Item]) -> Iterator[dict]:
        pairs = [(item, example) for item in batch for example in item.examples]
        if self.config.sampling.do_sample:
            key = f"{self.config.sampling.seed} {task.name} {mode} {pairs[0][1].id}"
            torch.manual_seed(int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "little"))
        by_template: dict[str, list[tuple[Item, Example]]] = {}
        for item, example in pairs:
            template = self.templates[task.name] or self.model.config.template(example.task)
            by_template.setdefault(template, []).append((item, example))
        context_tokens = {item.context_index: self._count_tokens(task, item) for item in batch}
        for template, of_template in by_template.items():
            answers = generate(
                self.model,
                [example.prompt for _, example in of_template],
                [item.encoded for item, _ in of_template],
                template=template,
                max_new_tokens=task.max_new_tokens,
                **_sampling_options(self.config),
            )
            yield from self._records(task, mode, of_template, answers, context_tokens)

    def _count_tokens(self, task: EvalTask, item: Item) -> int:
        text = self.stores[task.name].context_text(item.context_index)
        return len(self.model.decoder_tokenizer(text, add_special_tokens=False).input_ids)

    def _records(
        self,
        task: EvalTask,
        mode: str,
        pairs: list[tuple[Item, Example]],
        answers: list[GeneratedAnswer],
        context_tokens: dict[int, int],
    ) -> Iterator[dict]:
        num_chunks = self.stores[task.name].num_chunks
        for (item, example), answer in zip(pairs, answers, strict=True):
            slots = item.encoded.chunk_tokens.shape
            yield {
                "task": task.name,
                "id": example.id,
                "mode": mode,
                "prompt": example.prompt,
                "prediction": answer.text,
                "references": example.answers,
                "truncated": not answer.finished,
                "num_chunks": int(num_chunks[item.context_index]) if mode == "model" else 0,
                "num_chunk_tokens": slots[0] * slots[1],
                "context_tokens": context_tokens[item.context_index],
                "context_chars": item.encoded.num_characters,
                "meta": example.meta,
            }

    def _template(self, task: EvalTask) -> str | None:
        if task.prompt_file is None:
            return None
        source = f"tasks: prompt_file={task.prompt_file!r}"
        template = read_text(Path(task.prompt_file), source).rstrip("\n")
        check_template(template, source, needs_prompt=True)
        return template

    def _check_settings(self) -> None:
        """Check that the predictions that are there were made with the same settings; tasks may be added to them."""
        settings, path = self._settings(), self.folder / SETTINGS_FILE
        if self.path.exists():
            saved = read_json(path) if path.exists() else {}
            saved_tasks = saved.get("tasks", {})
            differing = [key for key in settings if key != "tasks" and saved.get(key) != settings[key]]
            differing += [
                f"task {name!r}" for name, task in settings["tasks"].items() if saved_tasks.get(name, task) != task
            ]
            if not differing:
                settings["tasks"] = saved_tasks | settings["tasks"]
            elif self.config.overwrite:
                self.path.unlink()
            else:
                raise UserError(
                    f"{self.path}: made with other settings ({', '.join(differing)} changed; see {SETTINGS_FILE}); "
                    "choose another output_dir or pass --overwrite true"
                )
        atomic_write_text(path, json.dumps(settings, indent=2, ensure_ascii=False) + "\n")

    def _read_done(self) -> set[tuple[str, str, str]]:
        """Return what is answered already; a last line without its end, left by a killed process, is cut off."""
        if not self.path.exists():
            return set()
        content = self.path.read_bytes()
        os.truncate(self.path, content.rfind(b"\n") + 1)
        records = list(read_jsonl(self.path))
        if records:
            logger.info("%s: %d predictions are there already", self.path, len(records))
        return {(record["task"], record["mode"], record["id"]) for record in records}

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
            "tasks": {
                task.name: {
                    "data": self.stores[task.name].fingerprint,
                    "max_new_tokens": task.max_new_tokens,
                    "template": self.templates[task.name],
                }
                for task in self.config.tasks
            },
        }


@torch.inference_mode()
def measure_reconstruction(config: EvalConfig, model: E2LLM) -> dict | None:
    """Measure the loss of restating held-out windows, with the right chunk tokens and with those of other chunks.

    Returns:
        `loss_true` and `loss_shuffled` in nats a token, `token_accuracy`, `num_tokens`, and the same `by_window`.
    """
    options = config.reconstruction
    if not options.data:
        return None
    store = open_eval_store(options.data, "reconstruction.data", model.config)
    limits = RowLimits(model.decoder_window, model.decoder_window, model.config.num_chunk_tokens)
    by_window = []
    for window in options.windows:
        stage = Stage(reasoning_share=0.0, min_window_chunks=window, max_window_chunks=window)
        long_enough = np.where(store.num_chunks >= window, store.num_chunks, 0)
        if not long_enough.any():
            logger.warning("reconstruction.windows: no context has %d chunks, so this window is not measured", window)
            continue
        # At least two, since a window's chunk tokens are exchanged for those of another one.
        batch_size = max(2, min(config.batch_size, options.num_windows))
        plan = BatchPlan(long_enough, np.zeros(0, np.int64), [stage], 0, batch_size, batch_size)
        data = StepDataset(
            store,
            plan,
            model.chunk_tokenizer,
            model.formatter,
            model.config.templates,
            limits,
            num_steps=-(-min(options.num_windows, int(long_enough.sum())) // batch_size),
            micro_batch_size=batch_size,
        )
        by_window.append({"window": window, **_reconstruction(model, data, window)})
    return _pooled(by_window) | {"by_window": by_window} if by_window else None


def _reconstruction(model: E2LLM, data: StepDataset, window: int) -> dict:
    sums = {"loss_true": 0.0, "loss_shuffled": 0.0, "token_accuracy": 0, "num_tokens": 0}
    for step in tqdm(range(len(data)), desc=f"restating {window} chunk{'s' * (window > 1)}"):
        for batch in data[step].micro_batches:
            tensors = batch.to(model.device).tensors
            output = model(tensors)
            sums["loss_true"] += output.loss_sum.item()
            sums["token_accuracy"] += int(output.num_correct)
            sums["num_tokens"] += output.num_tokens
            sums["loss_shuffled"] += model(tensors, shuffle_chunk_tokens=True).loss_sum.item()
    return {key: value if key == "num_tokens" else value / sums["num_tokens"] for key, value in sums.items()}


def _pooled(by_window: list[dict]) -> dict:
    num_tokens = sum(row["num_tokens"] for row in by_window)
    means = ("loss_true", "loss_shuffled", "token_accuracy")
    pooled = {key: sum(row[key] * row["num_tokens"] for row in by_window) / num_tokens for key in means}
    return pooled | {"num_tokens": num_tokens}


def _batches(items: list[Item], batch_size: int) -> Iterator[list[Item]]:
    """Cut contexts with their prompts into batches of `batch_size` prompts; parts of a context share its encoding."""
    batch: list[Item] = []
    room = batch_size
    for item in items:
        remaining = item
        while remaining.examples:
            taken = Item(item.context_index, remaining.examples[:room], remaining.encoded)
            batch.append(taken)
            room -= len(taken.examples)
            rest = remaining.examples[len(taken.examples) :]
            if room == 0:
                yield batch
                batch, room = [], batch_size
            # By now the batch is done, so its encoding can be handed on.
            remaining = Item(item.context_index, rest, taken.encoded)
    if batch:
        yield batch


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
