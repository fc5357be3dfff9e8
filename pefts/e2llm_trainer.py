"""The trainer. `Trainer.train_step` is a whole step of training, top to bottom."""

import contextlib
import hashlib
import logging
import math
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from tqdm import tqdm

from dataset.collator import MicroBatch
from dataset.dataset import StepData, StepDataset
from model.pro_model import E2LLM
from pefts.checkpoints import RunCheckpoints
from pefts.e2llm_args import TrainConfig
from pefts.optimizer import learning_rate_factor, optimizer_tensors, set_learning_rates
from pefts.run_log import LogWindow, RunLog, Sums, peak_memory_gib
from utils.common_utils import UserError

logger = logging.getLogger(__name__)

GRACE_SECONDS = 30
"""How long the loader's processes outlive a SIGTERM, so that the step under way can end."""


class Trainer:
    """Trains a model on the steps of a `StepDataset`.

    Args:
        accelerator: decides processes, devices and gradient exchange.
        model: the model; must be on its device.
        optimizer: over the model's trained parameters.
        train_data: what to train on, by step.
        validation_data: by objective, the steps of a validation.
        data_fingerprint: identifies the stores, for the check on resume.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        config: TrainConfig,
        model: E2LLM,
        optimizer: torch.optim.Optimizer,
        train_data: StepDataset,
        validation_data: dict[str, StepDataset],
        data_fingerprint: str,
    ):
        self.accelerator = accelerator
        self.config = config
        self.bare_model = model
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.train_data = train_data
        self.validation_data = validation_data
        self.data_fingerprint = data_fingerprint
        self.checkpoints = RunCheckpoints(Path(config.output_dir) / "checkpoints", config.checkpoint.keep_last)
        self.step = 0
        self.best_step: int | None = None
        self.best_loss = math.inf
        self.validations_without_gain = 0
        self.window = LogWindow()
        self.stop_signal: signal.Signals | None = None

    def restore(self, state: dict) -> None:
        """Continue from the state of a checkpoint whose weights and optimizer are already in place."""
        if state["data_fingerprint"] != self.data_fingerprint:
            raise UserError(
                "the stores have changed since the checkpoint was written, so the run cannot continue as it was; "
                "train into another output_dir"
            )
        self.step = state["step"]
        if self.accelerator.is_main_process:
            self.checkpoints.link(state)
        # A best checkpoint that is not here, because the run continues another's, cannot be this run's best.
        if state["best_step"] is not None and self.checkpoints.path(state["best_step"]).is_dir():
            self.best_step, self.best_loss = state["best_step"], state["best_loss"]
        self.validations_without_gain = state["validations_without_gain"]
        self.window = LogWindow.from_state(state["log_window"])

    @property
    def stops_early(self) -> bool:
        """Whether as many validations as `early_stopping_patience` says have brought no better loss."""
        return 0 < self.config.checkpoint.early_stopping_patience <= self.validations_without_gain

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train."""
        return self.step >= self.config.num_steps or self.stops_early

    def train(self) -> None:
        """Train to the end, to an early stop, or to a signal; every way out leaves a checkpoint.

        Raises:
            SystemExit: with code 128 + number of the signal that ended it.
        """
        run_log = RunLog(self.accelerator, self.config, self.step)
        steps = range(self.step, self.config.num_steps)
        progress = tqdm(
            total=self.config.num_steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        step_data = _step_data(self.train_data, steps, self.config.data.num_workers)
        with self._catch_signals(), progress, contextlib.closing(step_data):
            started = time.perf_counter()
            for data in step_data:
                sums, grad_norm, learning_rates = self.train_step(data)
                sums.seconds = time.perf_counter() - started
                self.window.of(data.objective).add(sums)
                self.window.last[data.objective] = {"grad_norm": grad_norm, "epoch": data.epoch}
                progress.update()
                if self.step % self.config.logging.every == 0 or self.step == self.config.num_steps:
                    self._log_window(run_log, progress, learning_rates)
                if not self._after_step(run_log):
                    break
                started = time.perf_counter()
        if self.accelerator.log_with:
            self.accelerator.end_training()
        if self.stop_signal:
            logger.warning("stopped by %s after step %d; continue with --resume auto", self.stop_signal.name, self.step)
            raise SystemExit(128 + self.stop_signal)

    def train_step(self, data: StepData) -> tuple[Sums, float, dict[str, float]]:
        """One optimizer step over this process's micro-batches.

        The loss is the sum over labelled tokens divided by their number in the whole global batch, so its gradient does
        not depend on how the batch is split over processes and micro-batches.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; nothing has been updated.
        """
        self.model.train()
        seed_step(self.config.seed, data.step, self.accelerator.process_index)
        factor = learning_rate_factor(data.step, self.config.num_steps, self.config.optim)
        learning_rates = set_learning_rates(self.optimizer, factor)
        with_shuffled = self.config.logging.shuffled_loss and not self.window.of(data.objective).shuffled_labels

        micro_batches = [batch.to(self.accelerator.device) for batch in data.micro_batches]
        sums = Sums(**data.counts)
        for batch in micro_batches:
            sums.labels += batch.num_labels
            sums.context_tokens += batch.num_context_tokens
            sums.decoder_tokens += batch.num_decoder_tokens
        global_labels = self._total(sums.labels)
        if global_labels == 0:
            raise UserError(f"step {data.step} ({data.objective}): the batch has no labelled token")

        for index, batch in enumerate(micro_batches):
            is_last = index == len(micro_batches) - 1
            with contextlib.nullcontext() if is_last else self.accelerator.no_sync(self.model):
                output = self.model(batch.tensors)
                self._check_finite("loss", output.loss_sum.item(), data, batch.example_ids)
                # Processes average their gradients, hence the factor.
                self.accelerator.backward(output.loss_sum * (self.accelerator.num_processes / global_labels))
            sums.loss += output.loss_sum.item()
            sums.correct += int(output.num_correct)

        grad_norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self.config.optim.max_grad_norm)
        example_ids = [example_id for batch in micro_batches for example_id in batch.example_ids]
        self._check_finite("gradient's norm", float(grad_norm), data, example_ids)
        if with_shuffled:
            self._add_shuffled(micro_batches, sums)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step = data.step + 1
        return sums, float(grad_norm), learning_rates

    @torch.no_grad()
    def validate(self) -> dict[str, Sums]:
        """Return token-weighted sums over the validation batches, by objective, over all processes."""
        self.model.eval()
        results = {}
        for objective, dataset in self.validation_data.items():
            sums = Sums()
            steps = _step_data(dataset, range(len(dataset)), num_workers=0)
            hidden = not self.accelerator.is_main_process
            for data in tqdm(steps, f"validating {objective}", len(dataset), leave=False, disable=hidden):
                micro_batches = [batch.to(self.accelerator.device) for batch in data.micro_batches]
                for batch in micro_batches:
                    output = self.model(batch.tensors)
                    sums.loss += output.loss_sum.item()
                    sums.correct += int(output.num_correct)
                    sums.labels += batch.num_labels
                self._add_shuffled(micro_batches, sums)
            results[objective] = self._reduced(sums)
        return results

    @torch.no_grad()
    def _add_shuffled(self, micro_batches: list[MicroBatch], sums: Sums) -> None:
        """Add the loss under the chunk tokens of the micro-batch before: one may hold the chunks of a single unit."""
        for index, batch in enumerate(micro_batches):
            num_chunks = len(batch.tensors["chunk_ids"])
            if len(micro_batches) > 1:
                other = micro_batches[index - 1].tensors
                chosen = torch.arange(num_chunks, device=other["chunk_ids"].device) % len(other["chunk_ids"])
                output = self.model(batch.tensors | {key: other[key][chosen] for key in ("chunk_ids", "chunk_mask")})
            elif num_chunks > 1:
                output = self.model(batch.tensors, shuffle_chunk_tokens=True)
            else:
                continue
            sums.shuffled_loss += output.loss_sum.item()
            sums.shuffled_labels += batch.num_labels

    def _check_finite(self, what: str, value: float, data: StepData, example_ids: list[str]) -> None:
        if not math.isfinite(value):
            raise FloatingPointError(
                f"step {data.step} ({data.objective}): the {what} is {value}; nothing was updated. "
                f"It was computed on: {', '.join(example_ids)}"
            )

    def _after_step(self, run_log: RunLog) -> bool:
        """Validate and save where due; tell whether to go on."""
        is_last = self.step == self.config.num_steps
        due = {
            name: is_last or self.step % every == 0
            for name, every in vars(self.config.checkpoint).items()
            if name in ("save_every", "validate_every")
        }
        if due["validate_every"] and self.validation_data:
            self._validate_and_compare(run_log)
        is_stopped = self._is_stopped()
        if due["save_every"] or self.best_step == self.step or self.stops_early or is_stopped:
            self.save()
        if self.stops_early:
            logger.info("stopping early: %d validations without a better loss", self.validations_without_gain)
        return not (self.stops_early or is_stopped)

    def _validate_and_compare(self, run_log: RunLog) -> None:
        losses = []
        for objective, sums in self.validate().items():
            metrics = sums.metrics()
            run_log.write(self.step, "validation", objective, metrics)
            logger.info("step %d validation %s: %s", self.step, objective, _readable(metrics))
            losses.append(metrics["loss"])
        # The mean of the objectives' losses, each weighted by its tokens within, so that long restatements do not hide
        # the short answers.
        loss = sum(losses) / len(losses)
        if loss < self.best_loss:
            self.best_step, self.best_loss = self.step, loss
            self.validations_without_gain = 0
        else:
            self.validations_without_gain += 1

    def save(self) -> None:
        """Write a checkpoint of the present step."""
        if self.accelerator.is_main_process:
            best_step = self.best_step if self.validation_data else self.step
            state = {
                "step": self.step,
                "best_step": best_step,
                "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
                "validations_without_gain": self.validations_without_gain,
                "data_fingerprint": self.data_fingerprint,
                "log_window": self.window.state(),
            }
            tensors = optimizer_tensors(self.bare_model, self.optimizer.optimizer)
            path = self.checkpoints.save(self.bare_model, tensors, state)
            logger.info("step %d: saved %s%s", self.step, path, " (the best so far)" if best_step == self.step else "")
        self.accelerator.wait_for_everyone()

    def _log_window(self, run_log: RunLog, progress: tqdm, learning_rates: dict[str, float]) -> None:
        common = {f"{group}_learning_rate": rate for group, rate in learning_rates.items()}
        common["memory_gib"] = peak_memory_gib(self.accelerator.device)
        shown = {}
        for objective in sorted(self.window.sums):
            metrics = self._reduced(self.window.sums[objective]).metrics() | self.window.last[objective] | common
            run_log.write(self.step, "train", objective, metrics)
            logger.info("step %d %s: %s", self.step, objective, _readable(metrics))
            shown[objective] = f"{metrics['loss']:.3f}"
        progress.set_postfix(shown)
        self.window = LogWindow()

    def _total(self, number: int) -> int:
        count = torch.tensor(number, device=self.accelerator.device)
        return int(self.accelerator.reduce(count, "sum"))

    def _reduced(self, sums: Sums) -> Sums:
        """Add the sums of all processes; the seconds are those of one."""
        if self.accelerator.num_processes == 1:
            return sums
        values = torch.tensor(list(vars(sums).values()), dtype=torch.float64, device=self.accelerator.device)
        values = self.accelerator.reduce(values, "sum").tolist()
        reduced = Sums(**dict(zip(vars(sums), values, strict=True)))
        reduced.seconds = sums.seconds
        return reduced

    def _is_stopped(self) -> bool:
        """Tell whether a signal has reached any process; all agree, so that they end after the same step."""
        if not self._total(int(self.stop_signal is not None)):
            return False
        self.stop_signal = self.stop_signal or signal.SIGTERM
        return True

    @contextlib.contextmanager
    def _catch_signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT end the training after the step under way; a second one ends it at once."""

        def note(number: int, _frame: object) -> None:
            if self.stop_signal:
                raise KeyboardInterrupt
            self.stop_signal = signal.Signals(number)
            # Not through logging, which may be in the midst of a line of the same stream.
            os.write(2, f"{self.stop_signal.name}: saving after this step (once more: stop at once)\n".encode())

        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def seed_step(seed: int, step: int, process_index: int) -> None:
    """Seed the randomness inside a step (dropout), so that it needs no saved state."""
    digest = hashlib.blake2b(f"{seed} {step} {process_index}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


def _step_data(dataset: StepDataset, steps: range, num_workers: int) -> Iterator[StepData]:
    # Not prepared by accelerate: the dataset gives each process its own share already.
    loader = DataLoader(
        dataset,
        sampler=steps,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_outlive_signals,
    )
    try:
        yield from loader
        return
    except UserError as error:
        # A worker's error comes with its traceback in front of its message.
        message = str(error).rpartition("UserError: ")[2].strip()
        # The frames on its way here hold the loader's iterator, which ends its processes when it is let go of.
        error.__traceback__ = None
    raise UserError(message)


def _outlive_signals(_worker: int) -> None:
    """Leave signals to the training process: a worker that died of one sent to them all would break its last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.alarm(GRACE_SECONDS))
    torch.set_num_threads(1)


def _readable(metrics: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in metrics.items())
