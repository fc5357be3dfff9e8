"""What a run trains and validates on: the stores of a config, opened, checked and planned."""

import dataclasses
import hashlib
import logging

from accelerate import Accelerator

from dataset.batch_plan import BatchPlan, NoFittingPromptError, Stage
from dataset.dataset import RowLimits, StepDataset
from dataset.store import ChunkStore, check_store_paths
from model.config import CUED, DEFAULT_TASK, UNDERSTANDING, E2LLMConfig
from model.pro_model import E2LLM
from pefts.e2llm_args import TrainConfig
from utils.common_utils import UserError, closest

logger = logging.getLogger(__name__)


def open_store(paths: list[str], key: str, model: E2LLMConfig) -> ChunkStore | None:
    """Open stores and check that they were chunked as the model's config says."""
    if not paths:
        return None
    check_store_paths(paths, key, model.chunk_size, model.chunk_overlap)
    store = ChunkStore.open(paths)
    for option in ("chunk_size", "chunk_overlap"):
        if getattr(store, option) != getattr(model, option):
            raise UserError(
                f"model.{option}={getattr(model, option)}: the store {key}={paths} was made with "
                f"{option}={getattr(store, option)}; set it to that or chunk the data anew"
            )
    return store


def warn_of_unused_prompts(config: TrainConfig, *stores: ChunkStore | None) -> None:
    """Say which templates of `data.prompt_files` are those of no task."""
    known = {UNDERSTANDING, CUED, DEFAULT_TASK}.union(*(store.tasks for store in stores if store))
    for task in sorted(config.data.prompt_files.keys() - known):
        logger.warning(
            "data.prompt_files.%s is not used: no example in data.train or data.validation has this task.%s It can be "
            "one of %s",
            task,
            closest(task, known),
            ", ".join(sorted(known - {""})),
        )


def warn_of_prompts_left_out(data: StepDataset) -> None:
    """Say how many prompts no stage answers, where stages answer any."""
    num_left_out = data.store.num_examples - len(data.plan.examples_answered())
    if num_left_out and any(stage.reasoning_share for stage in data.plan.stages):
        logger.warning(
            "data.stages: %d of the %d prompts are about contexts of lengths that no stage answers "
            "(min_context_chunks, max_context_chunks), and are not trained on",
            num_left_out,
            data.store.num_examples,
        )


def build_datasets(
    config: TrainConfig,
    model: E2LLM,
    train_store: ChunkStore,
    validation_store: ChunkStore | None,
    accelerator: Accelerator,
) -> tuple[StepDataset, dict[str, StepDataset]]:
    """Build the training data and, by objective, the validation data with the lengths of the last stage."""
    limits = RowLimits(model.decoder_window, config.data.max_answer_tokens, config.model.num_chunk_tokens)

    def dataset(store: ChunkStore, stages: list[Stage], seed: int, num_steps: int) -> StepDataset:
        plan = BatchPlan(
            store.num_chunks,
            store.example_context,
            stages,
            seed,
            config.data.understanding_batch_size,
            config.data.reasoning_batch_size,
            config.data.prompts_per_context,
        )
        return StepDataset(
            store,
            plan,
            model.chunk_tokenizer,
            model.formatter,
            config.model.templates,
            limits,
            num_steps,
            config.data.micro_batch_size,
            config.data.pack_prompts and model.takes_branches,
            accelerator.process_index,
            accelerator.num_processes,
        )

    train_data = dataset(train_store, config.data.stages, config.seed, config.num_steps)
    validation_data = {}
    if validation_store:
        last = config.data.stages[-1]
        shares = {"understanding": (0.0, 0.0), "cued": (0.0, 1.0), "reasoning": (1.0, 0.0)}
        trained = {train_data.plan.objective(step) for step in range(config.num_steps)}
        for objective in sorted(trained):
            reasoning_share, cued_share = shares[objective]
            stage = dataclasses.replace(last, steps=0, reasoning_share=reasoning_share, cued_share=cued_share)
            # The seed is fixed: two runs are compared on the same batches.
            try:
                data = dataset(validation_store, [stage], 0, config.data.num_validation_batches)
            except NoFittingPromptError:
                raise UserError(
                    f"data.validation={config.data.validation}: no prompt in it is about a context of "
                    f"{stage.context_lengths}, as the last stage, data.stages[{len(config.data.stages) - 1}], answers; "
                    "add such contexts or change the limits"
                ) from None
            data.num_steps = min(data.num_steps, data.plan.steps_in_epoch(objective))
            validation_data[objective] = data
    return train_data, validation_data


def check_validation(validation_data: dict[str, StepDataset]) -> None:
    """Prepare every validation batch of this process once: a mistake in one would end the run hours later.

    Raises:
        UserError: an example cannot be validated on.
    """
    try:
        for data in validation_data.values():
            for step in range(len(data)):
                data[step]
    except UserError as error:
        raise UserError(f"data.validation: {error}") from None


def validation_fingerprint(store: ChunkStore, validation_data: dict[str, StepDataset]) -> str:
    """Return a hex digest of the store, of the batches drawn from it and of what they are cut to."""
    batches = {
        objective: [data.plan.batch(step) for step in range(len(data))] for objective, data in validation_data.items()
    }
    limits = [data.limits for data in validation_data.values()]
    return hashlib.blake2b(repr((store.fingerprint, batches, limits)).encode(), digest_size=16).hexdigest()
