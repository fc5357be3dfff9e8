"""What the processes of a run tell each other beside gradients: counts, and errors that end all of them."""

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from utils.common_utils import UserError


class AgreedError(UserError):
    """A `UserError` that every process raises at the same point; the main process alone prints it."""


def total(accelerator: Accelerator, number: int) -> int:
    """Return the sum of all processes' numbers; all must call it."""
    return int(accelerator.reduce(torch.tensor(number, device=accelerator.device), "sum"))


def greatest(accelerator: Accelerator, number: float) -> float:
    """Return the greatest of all processes' numbers; all must call it."""
    return accelerator.gather(torch.tensor([float(number)], device=accelerator.device)).max().item()


def raise_together(accelerator: Accelerator, error: str | None) -> None:
    """Raise in every process if any of them gives an error; all must call it.

    Raises:
        AgreedError: with the errors of all processes.
    """
    errors = [error] if accelerator.num_processes == 1 else gather_object([error])
    distinct = [text for text in dict.fromkeys(errors) if text]
    if distinct:
        raise AgreedError("; ".join(distinct))
