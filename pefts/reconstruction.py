"""How well the decoder restates held-out chunks, with their own chunk tokens and with those of other chunks."""

import logging

import numpy as np
import torch
from tqdm import tqdm

from dataset.batch_plan import BatchPlan, Stage
from dataset.dataset import NoRoomError, RowLimits, StepData, StepDataset
from model.pro_model import E2LLM
from pefts.eval_args import EvalConfig
from pefts.eval_plan import open_eval_store

logger = logging.getLogger(__name__)


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
        num_windows = min(options.num_windows, int(long_enough.sum()))
        num_batches = -(-num_windows // config.batch_size)
        # At least two, since a window's chunk tokens are exchanged for those of another one.
        batch_size = max(2, -(-num_windows // num_batches))
        plan = BatchPlan(long_enough, np.zeros(0, np.int64), [stage], 0, batch_size, batch_size)
        data = StepDataset(
            store,
            plan,
            model.chunk_tokenizer,
            model.formatter,
            model.config.templates,
            limits,
            num_steps=num_batches,
            micro_batch_size=batch_size,
        )
        try:
            steps = [data[step] for step in range(len(data))]
        except NoRoomError:
            logger.warning(
                "reconstruction.windows: %d chunks restated have no place beside their chunk tokens in the decoder's "
                "window of %d, so this window is not measured",
                window,
                model.decoder_window,
            )
            continue
        _report_counts(steps, window)
        by_window.append({"window": window, **_reconstruction(model, steps, window)})
    return _pooled(by_window) | {"by_window": by_window} if by_window else None


def _report_counts(steps: list[StepData], window: int) -> None:
    counts = {key: sum(step.counts[key] for step in steps) for key in ("truncated_answers", "trimmed_contexts")}
    if any(counts.values()):
        logger.warning(
            "reconstruction.windows: of the windows of %d chunks, %d were restated in part, and %d read without their "
            "last chunk tokens, for want of room in the decoder's window",
            window,
            *counts.values(),
        )


def _reconstruction(model: E2LLM, steps: list[StepData], window: int) -> dict:
    sums = {"loss_true": 0.0, "loss_shuffled": 0.0, "token_accuracy": 0, "num_tokens": 0}
    for step in tqdm(steps, desc=f"restating {window} chunk{'s' * (window > 1)}"):
        for batch in step.micro_batches:
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
