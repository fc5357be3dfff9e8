"""The steps of a `StepDataset`, prepared ahead by background processes."""

import pickle
import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Dataset

from dataset.dataset import StepData, StepDataset
from utils.common_utils import UserError

GRACE_SECONDS = 600
"""How long the background processes outlive a SIGTERM, so that the step under way can end: on a processor one over long
contexts takes a minute. They end with the training process in any case."""


class _Packets(Dataset):
    """A `StepDataset` whose steps come as bytes.

    Each tensor that a background process hands over as it is takes an open file here, and a step has hundreds: several
    that wait exceed what systems allow.
    """

    def __init__(self, dataset: StepDataset):
        self.dataset = dataset

    def __getitem__(self, step: int) -> bytes:
        return pickle.dumps(self.dataset[step], pickle.HIGHEST_PROTOCOL)


def step_data(dataset: StepDataset, steps: range, num_workers: int) -> Iterator[StepData]:
    """Yield what this process trains on at each of `steps`.

    Raises:
        UserError: as the dataset raises it, also where a background process met it.
    """
    # Not prepared by accelerate: the dataset gives each process its own share already.
    loader = DataLoader(
        _Packets(dataset),
        sampler=steps,
        batch_size=None,
        num_workers=num_workers,
        prefetch_factor=4 if num_workers else None,
        worker_init_fn=_outlive_signals,
    )
    try:
        yield from map(pickle.loads, loader)
        return
    except UserError as error:
        # A worker's error comes with its traceback in front of its message.
        message = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        # The frames on its way here hold the loader's iterator, which ends its processes when it is let go of.
        error.__traceback__ = None
    raise UserError(message)


def _outlive_signals(_worker: int) -> None:
    """Leave signals to the training process: a worker that died of one sent to them all would break its last step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda _number, _frame: signal.alarm(GRACE_SECONDS))
    torch.set_num_threads(1)
