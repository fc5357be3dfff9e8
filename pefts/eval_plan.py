"""What an evaluation has to do: the stores of its tasks, their prompts by context, and the units of work.

    task ── contexts, shortest first ── units of work (contexts with all their prompts)

The units are a function of data and options, so an evaluation goes on where it stopped on any number of processes.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dataset.store import ChunkStore, Example, check_store_paths
from model.config import E2LLMConfig
from model.pro_model import E2LLM
from pefts.eval_args import EvalConfig, EvalTask
from utils.common_utils import UserError


def open_eval_store(paths: list[str], key: str, model_config: E2LLMConfig) -> ChunkStore:
    """Open stores and check that they were chunked as the model was trained."""
    check_store_paths(paths, key, model_config.chunk_size, model_config.chunk_overlap)
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


class EvalPlan:
    """The work of an evaluation.

    Raises:
        UserError: a task's data do not fit the model.
    """

    def __init__(self, config: EvalConfig, model: E2LLM):
        self.config = config
        self.num_chunk_tokens = model.config.num_chunk_tokens
        self.stores: dict[str, ChunkStore] = {}
        self.examples: dict[str, dict[int, list[Example]]] = {}
        """By task, the prompts of each context."""
        for index, task in enumerate(config.tasks):
            key = f"tasks[{index}].data"
            self.stores[task.name] = open_eval_store(task.data, key, model.config)
            self.examples[task.name] = self._examples_by_context(task, key)
        self.units = [unit for task in config.tasks for unit in self._units(task)]

    def modes(self, task: EvalTask) -> list[str]:
        """Return the modes of a task."""
        return task.modes or self.config.modes

    def ids(self, task: EvalTask) -> list[str]:
        """Return the ids of a task's prompts."""
        return [example.id for examples in self.examples[task.name].values() for example in examples]

    def _units(self, task: EvalTask) -> Iterator[Unit]:
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
            own = (len(by_context[context]), int(num_chunks[context]) * self.num_chunk_tokens)
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
