"""The trainer. `Trainer.train_step` is a whole step of training, top to bottom."""

import contextlib
import hashlib
import logging
import math
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from tqdm import tqdm

from dataset.collator import MicroBatch
from dataset.dataset import StepData, StepDataset
from model.pro_model import E2LLM
from pefts.agreement import AgreedError, greatest, raise_together, total
from pefts.checkpoints import RunCheckpoints
from pefts.e2llm_args import TrainConfig
from pefts.engines import Engine
from pefts.optimizer import learning_rate_factor, set_learning_rates
from pefts.run_log import LogWindow, RunLog, Sums, peak_memory_gib
from pefts.step_clock import StepClock
from pefts.step_loader import step_data
from pefts.stop_signals import StopSignals
from utils.common_utils import UserError

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model on the steps of a `StepDataset`.

    Args:
        accelerator: decides processes, devices and gradient exchange.
        model: the model; must be on its device.
        optimizer: over the model's trained parameters, without a state.
        train_data: what to train on, by step.
        validation_data: by objective, the steps of a validation.
        data_fingerprint: identifies the stores, for the check on resume.
        validation_fingerprint: identifies what is validated on; None without validation.
        engine: exchanges gradients and updates the weights.
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
        validation_fingerprint: str | None,
        engine: type[Engine] = Engine,
    ):
        self.accelerator = accelerator
        self.config = config
        self.bare_model = model
        self.engine = engine(accelerator, model, optimizer, config.optim.max_grad_norm)
        self.clock = StepClock(model.chunk_encoder, accelerator.device)
        self.train_data = train_data
        self.validation_data = validation_data
        self.data_fingerprint = data_fingerprint
        self.validation_fingerprint = validation_fingerprint
        self.checkpoints = RunCheckpoints(Path(config.output_dir) / "checkpoints", config.checkpoint.keep_last)
        self.step = 0
        self.best_step: int | None = None
        self.best_loss = math.inf
        self.validations_without_gain = 0
        self.validation_is_due = False
        """Whether the model as it is now is still to be validated."""
        self.window = LogWindow()
        self.stop = StopSignals(accelerator)

    def restore(self, state: dict) -> None:
        """Continue from the state of a checkpoint whose weights and optimizer are already in place."""
        if state["data_fingerprint"] != self.data_fingerprint:
            way_out = "train into another output_dir"
            if self.config.resume not in ("auto", "none"):
                way_out = "name the stores it was trained on, or start anew with --resume none"
            raise AgreedError(
                "the stores have changed since the checkpoint was written, so the run cannot continue as it was; "
                f"{way_out}"
            )
        self._report_changed_options(state.get("options", {}))
        self.step = state["step"]
        if self.accelerator.is_main_process:
            self.checkpoints.link(state)
        self._restore_best(state)
        self.validation_is_due = bool(self.validation_data) and state.get("validation_is_due", False)
        self.window = LogWindow.from_state(state["log_window"], with_sums=self.accelerator.is_main_process)

    def _restore_best(self, state: dict) -> None:
        best_step, best_loss = state["best_step"], state["best_loss"]
        if state.get("validation_fingerprint", self.validation_fingerprint) != self.validation_fingerprint:
            if best_loss is not None and self.accelerator.is_main_process:
                logger.warning(
                    "the validation batches have changed since the checkpoint was written: the best loss so far, %.4g "
                    "after step %d, is forgotten",
                    best_loss,
                    best_step,
                )
            return
        # Without validation the last step counts as the best, with no loss. And a best checkpoint that is not here,
        # because the run continues another's, cannot be this run's best.
        if best_loss is not None and self.checkpoints.path(best_step).is_dir():
            self.best_step, self.best_loss = best_step, best_loss
        self.validations_without_gain = state["validations_without_gain"]

    def _report_changed_options(self, saved: dict[str, object]) -> None:
        if self.accelerator.is_main_process:
            for key, value in self.config.options_of_result().items():
                if key in saved and saved[key] != value:
                    logger.warning("changed since the checkpoint: %s was %r, is %r", key, saved[key], value)

    @property
    def stops_early(self) -> bool:
        """Whether as many validations as `early_stopping_patience` says have brought no better loss."""
        return 0 < self.config.checkpoint.early_stopping_patience <= self.validations_without_gain

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left to train or to validate."""
        return not self.validation_is_due and (self.step >= self.config.num_steps or self.stops_early)

    def train(self) -> None:
        """Train to the end, to an early stop, or to a signal; every way out leaves a checkpoint.

        Raises:
            SystemExit: with code 128 + number of the signal that ended it.
        """
        run_log = RunLog(self.accelerator, self.config, self.step, validates_again=self.validation_is_due)
        steps = range(self.step, self.config.num_steps)
        progress = tqdm(
            total=self.config.num_steps,
            initial=self.step,
            desc="training",
            unit="step",
            disable=not self.accelerator.is_main_process,
        )
        steps_ahead = step_data(self.train_data, steps, self.config.data.num_workers)
        with self.stop.caught(), progress, contextlib.closing(steps_ahead):
            # The validation of a checkpoint's step may have been cut off.
            goes_on = not self.validation_is_due or self._validate_and_save(run_log, is_save_due=True)
            started = time.perf_counter()
            for data in steps_ahead if goes_on else ():
                waited = time.perf_counter() - started
                sums, grad_norm, learning_rates = self.train_step(data)
                sums.data_seconds = waited
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
        if self.stop.signal:
            logger.warning("stopped by %s after step %d; continue with --resume auto", self.stop.signal.name, self.step)
            raise SystemExit(128 + self.stop.signal)

    def train_step(self, data: StepData) -> tuple[Sums, float, dict[str, float]]:
        """One optimizer step over this process's micro-batches.

        The loss is the sum over labelled tokens divided by their number in the whole global batch, so its gradient does
        not depend on how the batch is split over processes and micro-batches.

        Raises:
            FloatingPointError: the loss or the gradient is not finite; nothing has been updated.
        """
        self.engine.module.train()
        factor = learning_rate_factor(data.step, self.config.num_steps, self.config.optim)
        learning_rates = set_learning_rates(self.engine.optimizer, factor)
        micro_batches = [batch.to(self.accelerator.device) for batch in data.micro_batches]
        sums = self._counted(data, micro_batches)
        global_labels = total(self.accelerator, sums.labels)
        if global_labels == 0:
            raise UserError(f"step {data.step} ({data.objective}): the batch has no labelled token")
        # Where weights are sharded, all processes must run the model as often: this is the same in all of them.
        if self.config.logging.shuffled_loss and data.objective not in self.window.sums:
            seed_step(self.config.seed, data.step, self.accelerator.process_index)
            self._add_shuffled(self.train_data, data.step, micro_batches, sums)

        seed_step(self.config.seed, data.step, self.accelerator.process_index)
        bad_examples = []
        for index, batch in enumerate(micro_batches):
            with self.engine.micro_batch(is_last=index == len(micro_batches) - 1):
                with self.clock.forward():
                    output = self.engine.module(batch.tensors)
                    loss_sum = output.loss_sum.item()
                with self.clock.phase("backward"):
                    # Processes average their gradients, hence the factor.
                    self.engine.backward(output.loss_sum * (self.accelerator.num_processes / global_labels))
            sums.loss += loss_sum
            sums.correct += int(output.num_correct)
            if not math.isfinite(loss_sum):
                bad_examples += batch.example_ids
        self._check_finite("loss", sums.loss, data, bad_examples)
        if sums.shuffled_labels:
            sums.unshuffled_loss = sums.loss
        with self.clock.phase("optimizer"):
            grad_norm = self.engine.clip_gradients()
            example_ids = [example_id for batch in micro_batches for example_id in batch.example_ids]
            self._check_finite("gradient's norm", grad_norm, data, [] if math.isfinite(grad_norm) else example_ids)
            self.engine.step()
        for name, seconds in self.clock.take().items():
            setattr(sums, f"{name}_seconds", seconds)
        self.step = data.step + 1
        return sums, grad_norm, learning_rates

    def _counted(self, data: StepData, micro_batches: list[MicroBatch]) -> Sums:
        sums = Sums(**data.counts, steps=1)
        for batch in micro_batches:
            sums.labels += batch.num_labels
            sums.context_tokens += batch.num_context_tokens
            sums.decoder_tokens += batch.num_decoder_tokens
        return sums

    @torch.no_grad()
    def validate(self) -> dict[str, Sums] | None:
        """Return token-weighted sums over the validation batches, by objective, over all processes.

        None if a signal to stop came before the end, in any process.
        """
        self.engine.module.eval()
        results = {}
        for objective, dataset in self.validation_data.items():
            sums = Sums()
            steps = step_data(dataset, range(len(dataset)), num_workers=0)
            hidden = not self.accelerator.is_main_process
            for data in tqdm(steps, f"validating {objective}", len(dataset), leave=False, disable=hidden):
                if self.stop.reached_any():
                    return None
                micro_batches = [batch.to(self.accelerator.device) for batch in data.micro_batches]
                of_step = Sums(labels=sum(batch.num_labels for batch in micro_batches))
                for batch in micro_batches:
                    output = self.engine.module(batch.tensors)
                    of_step.loss += output.loss_sum.item()
                    of_step.correct += int(output.num_correct)
                self._add_shuffled(dataset, data.step, micro_batches, of_step)
                if of_step.shuffled_labels:
                    of_step.unshuffled_loss = of_step.loss
                sums.add(of_step)
            results[objective] = self._reduced(sums)
        return results

    @torch.no_grad()
    def _add_shuffled(self, dataset: StepDataset, step: int, micro_batches: list[MicroBatch], sums: Sums) -> None:
        """Add the loss under the chunk tokens of other contexts, if there are any."""
        others = dataset.chunks_of_others(step)
        if others is None:
            return
        for batch in micro_batches:
            # Taken again from the first on where there are not enough.
            chosen = torch.arange(len(batch.tensors["chunk_ids"])) % len(others["chunk_ids"])
            exchanged = {key: tensor[chosen].to(self.accelerator.device) for key, tensor in others.items()}
            sums.shuffled_loss += self.engine.module(batch.tensors | exchanged).loss_sum.item()
            sums.shuffled_labels += batch.num_labels

    def _check_finite(self, what: str, value: float, data: StepData, bad_examples: list[str]) -> None:
        """Raise in all processes if any of them names examples; `value` is what they came to here."""
        if not total(self.accelerator, len(bad_examples)):
            return
        values = [value] if bad_examples else []
        if self.accelerator.num_processes > 1:
            values, bad_examples = gather_object(values), gather_object(bad_examples)
        raise FloatingPointError(
            f"step {data.step} ({data.objective}): the {what} is {values[0]}; nothing was updated. "
            f"It was computed on: {', '.join(bad_examples)}"
        )

    def _after_step(self, run_log: RunLog) -> bool:
        """Validate and save where due; tell whether to go on."""
        is_last = self.step == self.config.num_steps
        every = self.config.checkpoint
        self.validation_is_due = bool(self.validation_data) and (is_last or self.step % every.validate_every == 0)
        is_save_due = is_last or self.step % every.save_every == 0
        if is_save_due and self.validation_is_due:
            # A validation may take long: whatever ends it must not cost the steps before it.
            self.save()
        return self._validate_and_save(run_log, is_save_due)

    def _validate_and_save(self, run_log: RunLog, is_save_due: bool) -> bool:
        """Validate where due, save where due or worth it; tell whether to go on."""
        if self.validation_is_due:
            self._validate_and_compare(run_log)
        is_stopped = self.stop.reached_any()
        if is_save_due or self.best_step == self.step or self.stops_early or is_stopped:
            self.save()
        if self.stops_early:
            logger.info("stopping early: %d validations without a better loss", self.validations_without_gain)
        return not (self.stops_early or is_stopped)

    def _validate_and_compare(self, run_log: RunLog) -> None:
        """Validate and take note of the result, unless a signal comes first."""
        results = self.validate()
        if results is None:
            return
        self.validation_is_due = False
        losses = []
        for objective, sums in results.items():
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
        """Write a checkpoint of the present step; all processes must call it.

        Raises:
            AgreedError: it could not be written.
        """
        weights, tensors = self.engine.model_tensors(), self.engine.optimizer_tensors()
        window = LogWindow({name: self._reduced(sums) for name, sums in self.window.sums.items()}, self.window.last)
        problem = None
        if self.accelerator.is_main_process:
            try:
                self._write_checkpoint(weights, tensors, window)
            except (OSError, SafetensorError) as error:
                problem = (
                    f"{self.checkpoints.path(self.step)}: the checkpoint could not be written ({error}). What was "
                    "there before is untouched: make room or mend the folder, and continue with --resume auto"
                )
        raise_together(self.accelerator, problem)

    def _write_checkpoint(
        self, weights: dict[str, dict[str, torch.Tensor]], tensors: dict[str, torch.Tensor], window: LogWindow
    ) -> None:
        best_step = self.best_step if self.validation_data else self.step
        state = {
            "step": self.step,
            "best_step": best_step,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "validations_without_gain": self.validations_without_gain,
            "validation_is_due": self.validation_is_due,
            "data_fingerprint": self.data_fingerprint,
            "validation_fingerprint": self.validation_fingerprint,
            "options": self.config.options_of_result(),
            "log_window": window.state(),
        }
        path = self.checkpoints.save(self.bare_model, tensors, state, weights)
        logger.info("step %d: saved %s%s", self.step, path, " (the best so far)" if best_step == self.step else "")

    def _log_window(self, run_log: RunLog, progress: tqdm, learning_rates: dict[str, float]) -> None:
        common = {f"{group}_learning_rate": rate for group, rate in learning_rates.items()}
        common["memory_gib"] = greatest(self.accelerator, peak_memory_gib(self.accelerator.device))
        shown = {}
        for objective in sorted(self.window.sums):
            metrics = self._reduced(self.window.sums[objective]).metrics() | self.window.last[objective] | common
            run_log.write(self.step, "train", objective, metrics)
            logger.info("step %d %s: %s", self.step, objective, _readable(metrics))
            logger.info("step %d %s: seconds a step: %s", self.step, objective, _readable_times(metrics))
            shown[objective] = f"{metrics['loss']:.3f}"
        progress.set_postfix(shown)
        self.window = LogWindow()

    def _reduced(self, sums: Sums) -> Sums:
        """Add the sums of all processes; the seconds of the whole are those of one."""
        if self.accelerator.num_processes == 1:
            return sums
        values = torch.tensor(list(vars(sums).values()), dtype=torch.float64, device=self.accelerator.device)
        values = self.accelerator.reduce(values, "sum").tolist()
        reduced = Sums(**dict(zip(vars(sums), values, strict=True)))
        reduced.seconds = sums.seconds
        return reduced


def seed_step(seed: int, step: int, process_index: int) -> None:
    """Seed the randomness inside a step (dropout), so that it needs no saved state."""
    digest = hashlib.blake2b(f"{seed} {step} {process_index}".encode(), digest_size=7).digest()
    torch.manual_seed(int.from_bytes(digest, "little"))


def _readable(metrics: dict[str, float]) -> str:
    return "  ".join(f"{key} {value:.4g}" for key, value in metrics.items() if not key.endswith("_seconds"))


def _readable_times(metrics: dict[str, float]) -> str:
    times = {key.removesuffix("_seconds"): value for key, value in metrics.items() if key.endswith("_seconds")}
    return "  ".join(f"{key} {value:.3g}" for key, value in times.items())
