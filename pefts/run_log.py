"""What a run writes down: train.log, metrics.jsonl, TensorBoard, Weights & Biases, and sums between two log lines."""

import dataclasses
import json
import logging
import resource
import sys
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, WandBTracker
from tqdm import tqdm

from pefts.e2llm_args import LoggingConfig, TrainConfig
from utils.common_utils import UserError, atomic_write_text

METRICS_FILE = "metrics.jsonl"
PHASES = ("data", "encoder", "decoder", "backward", "optimizer")
"""What a step spends its time on: waiting for data, the forward passes of encoder with adapter and of decoder with
head, the backward pass (where recomputing happens), and clipping with the update."""


class _TqdmHandler(logging.StreamHandler):
    """Prints above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def set_up_logging(log_file: Path | None, is_main_process: bool) -> None:
    """Send messages to the terminal and, from the main process, to a file; the other processes print warnings alone."""
    handlers: list[logging.Handler] = [_TqdmHandler()]
    if log_file is not None and is_main_process:
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    formatter = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    root = logging.getLogger()
    for handler in root.handlers[:]:
        root.removeHandler(handler)
    for handler in handlers:
        handler.setFormatter(formatter)
        root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for package in ("model", "dataset", "pefts", "utils", "__main__"):
        logging.getLogger(package).setLevel(logging.INFO if is_main_process else logging.WARNING)
    # PEFT asks for this attribute whenever it wraps a model.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


@dataclass
class Sums:
    """Token-weighted sums of one objective; those of several steps or processes add up."""

    loss: float = 0.0
    correct: int = 0
    labels: int = 0
    shuffled_loss: float = 0.0
    """Loss under chunk tokens of other contexts, of some of the steps."""
    shuffled_labels: int = 0
    unshuffled_loss: float = 0.0
    """Loss of the same steps under their own."""
    context_tokens: int = 0
    decoder_tokens: int = 0
    seconds: float = 0.0
    steps: int = 0
    data_seconds: float = 0.0
    encoder_seconds: float = 0.0
    decoder_seconds: float = 0.0
    backward_seconds: float = 0.0
    optimizer_seconds: float = 0.0
    truncated_answers: int = 0
    trimmed_contexts: int = 0
    split_chunks: int = 0
    ambiguous_cues: int = 0

    def add(self, other: "Sums") -> None:
        """Add another's sums to these."""
        for key, value in vars(other).items():
            setattr(self, key, getattr(self, key) + value)

    def metrics(self) -> dict[str, float]:
        """Return the means a token, the phases' seconds a step, and what was cut or ambiguous if anything was."""
        values = {"loss": self.loss / max(1, self.labels), "token_accuracy": self.correct / max(1, self.labels)}
        if self.shuffled_labels:
            values["shuffled_loss"] = self.shuffled_loss / self.shuffled_labels
            values["shuffled_gap"] = (self.shuffled_loss - self.unshuffled_loss) / self.shuffled_labels
        if self.seconds:
            values["context_tokens_per_second"] = self.context_tokens / self.seconds
            values["decoder_tokens_per_second"] = self.decoder_tokens / self.seconds
        if self.steps:
            values |= {f"{phase}_seconds": getattr(self, f"{phase}_seconds") / self.steps for phase in PHASES}
        names = ("truncated_answers", "trimmed_contexts", "split_chunks", "ambiguous_cues")
        return values | {key: getattr(self, key) for key in names if getattr(self, key)}


@dataclass
class LogWindow:
    """What has been summed since the last log line, by objective; saved with a checkpoint."""

    sums: dict[str, Sums] = field(default_factory=dict)
    last: dict[str, dict[str, float]] = field(default_factory=dict)
    """What is logged of an objective's last step alone: gradient norm, epoch."""

    def of(self, objective: str) -> Sums:
        """Return the sums of an objective, at zero the first time."""
        return self.sums.setdefault(objective, Sums())

    def state(self) -> dict[str, dict]:
        """Return it as plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, dict], with_sums: bool) -> "LogWindow":
        """Make a window of what `state` returned.

        Args:
            with_sums: take the sums over; otherwise the objectives stand at zero. One process takes those of all.
        """
        sums = {objective: Sums(**values) if with_sums else Sums() for objective, values in state["sums"].items()}
        return cls(sums, state["last"])


def chosen_trackers(config: LoggingConfig) -> list[str | GeneralTracker]:
    """Return what `Accelerator` is to log with.

    Raises:
        UserError: Weights & Biases is not installed; accelerate would pass over it without a word.
    """
    trackers: list[str | GeneralTracker] = ["tensorboard"] if config.tensorboard else []
    if config.wandb_project:
        if find_spec("wandb") is None:
            raise UserError(
                f"logging.wandb_project={config.wandb_project!r}: wandb is not installed; pip install wandb, or leave "
                "the project out"
            )
        # Made here, since accelerate would name TensorBoard's folder after the project, and report every process.
        wandb = WandBTracker(config.wandb_project)
        wandb.main_process_only = True
        trackers.append(wandb)
    return trackers


class RunLog:
    """Writes metrics from the main process to metrics.jsonl, TensorBoard and W&B.

    Args:
        first_step: steps taken before; what was logged of later ones will be logged again.
        validates_again: the validation after `first_step` steps will be logged again too.
    """

    def __init__(self, accelerator: Accelerator, config: TrainConfig, first_step: int, validates_again: bool = False):
        self.accelerator = accelerator
        self.path = Path(config.output_dir) / METRICS_FILE
        if accelerator.is_main_process:
            drop_metrics_after(self.path, first_step, validates_again)
        if accelerator.log_with:
            accelerator.init_trackers(
                "tensorboard",
                config={"config": json.dumps(dataclasses.asdict(config))},
                # What a killed run logged after its last checkpoint is logged again.
                init_kwargs={"tensorboard": {"purge_step": first_step + 1}},
            )

    def write(self, step: int, split: str, objective: str, metrics: dict[str, float]) -> None:
        """Write one line of metrics."""
        if not self.accelerator.is_main_process:
            return
        line = {"step": step, "split": split, "objective": objective, **metrics}
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.accelerator.log_with:
            self.accelerator.log({f"{split}/{objective}/{key}": value for key, value in metrics.items()}, step=step)


def drop_metrics_after(path: Path, step: int, validates_again: bool = False) -> None:
    """Cut metrics.jsonl back to a step, as a run that continues from its checkpoint will write the rest again.

    Args:
        validates_again: the step's own validation goes too.
    """
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            content = json.loads(line)
            is_again = validates_again and content["step"] == step and content["split"] == "validation"
            if content["step"] <= step and not is_again:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break  # the half line of a killed process
    atomic_write_text(path, "".join(kept))


def peak_memory_gib(device: torch.device) -> float:
    """Return the most memory this process has held: on its GPU, or resident on the processor."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / 2**20 if sys.platform != "darwin" else kilobytes / 2**30
