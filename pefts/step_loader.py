"""The steps of a `StepDataset`, prepared ahead by background processes."""

import resource
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from dataset.dataset import StepData, StepDataset
from utils.common_utils import UserError

GRACE_SECONDS = 600
"""How long the background processes outlive a SIGTERM, so that the step under way can end: on a processor one over long
contexts takes a minute. They end with the training process in any case."""
OPEN_FILES = 8192
"""Open files that are enough for the steps prepared ahead: each of their tensors comes as one, hundreds a step."""


def step_data(dataset: StepDataset, steps: range, num_workers: int) -> Iterator[StepData]:
    """Yield what this process trains on at each of `steps`.

    Raises:
        UserError: as the dataset raises it, also where a background process met it.
    """
    if num_workers:
        _allow_open_files()
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
        message = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        # The frames on its way here hold the loader's iterator, which ends its processes when it is let go of.
        error.__traceback__ = None
    raise UserError(message)


def _allow_open_files() -> None:
    """Raise this process's limit of open files as the system lets it; where that is little, pass tensors by name."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        torch.multiprocessing.set_sharing_strategy("file_system")


def _outlive_signals(_worker: int) -> None:
    """Leave signals to the training process: a worker that died of one sent to them all would break its last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.alarm(GRACE_SECONDS))
    torch.set_num_threads(1)
