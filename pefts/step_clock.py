"""How long the parts of a training step take."""

import contextlib
import time
from collections.abc import Iterator

import torch
from torch import nn


class StepClock:
    """Adds up the seconds of a step's parts, so that a user sees what is slow.

    On a GPU every reading waits for what has been started: a step has a handful of them and reads its loss anyway.

    Args:
        encoder: the module whose forward pass, inside `forward`, counts as `encoder` and not as `decoder`.
        device: where the step runs.
    """

    def __init__(self, encoder: nn.Module, device: torch.device):
        self.device = device
        self.seconds: dict[str, float] = {}
        self._in_forward = False
        self._encoder_started = 0.0
        encoder.register_forward_pre_hook(self._start_encoder)
        encoder.register_forward_hook(self._stop_encoder)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the time of a block under a name."""
        started = self._now()
        yield
        self._add(name, self._now() - started)

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """Count the time of a forward pass, divided into `encoder` and `decoder`."""
        before = self.seconds.get("encoder", 0.0)
        self._in_forward, started = True, self._now()
        try:
            yield
        finally:
            self._in_forward = False
        self._add("decoder", self._now() - started - (self.seconds.get("encoder", 0.0) - before))

    def take(self) -> dict[str, float]:
        """Return the seconds by name and start anew."""
        taken, self.seconds = self.seconds, {}
        return taken

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _start_encoder(self, *_arguments: object) -> None:
        if self._in_forward:
            self._encoder_started = self._now()

    def _stop_encoder(self, *_arguments: object) -> None:
        if self._in_forward:
            self._add("encoder", self._now() - self._encoder_started)
