"""Signals that end a training after the step under way, in all its processes."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator

from accelerate import Accelerator

from pefts.agreement import greatest

logger = logging.getLogger(__name__)

LAUNCHED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Environment variable of processes with a launcher that ends them together."""


class StopSignals:
    """Catches SIGTERM and SIGINT, and lets all processes act on one that reached any of them."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.signal: signal.Signals | None = None
        self.parent_id = os.getppid()

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Note signals instead of dying of them; a second one raises KeyboardInterrupt at once.

        Where an error ends the block, this process has to say which, while the launcher sends SIGTERM to all as soon as
        one is gone: from then on it is ignored.
        """

        def note(number: int, _frame: object) -> None:
            if self.signal:
                raise KeyboardInterrupt
            self.signal = signal.Signals(number)
            # Not through logging, which may be in the midst of a line of the same stream.
            os.write(2, f"{self.signal.name}: saving after this step (once more: stop at once)\n".encode())

        previous = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        except BaseException:
            if self.accelerator.num_processes > 1:
                previous[signal.SIGTERM] = signal.SIG_IGN
            raise
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def reached_any(self) -> bool:
        """Tell whether a signal reached any process or a launcher is gone; all agree, to end after the same step."""
        if LAUNCHED_BY_TORCHRUN in os.environ and os.getppid() != self.parent_id and not self.signal:
            logger.warning("the launcher is gone: saving after this step")
            self.signal = signal.SIGTERM
        number = int(greatest(self.accelerator, self.signal or 0))
        if not number:
            # One that arrives meanwhile is shared after the next step.
            return False
        self.signal = signal.Signals(number)
        return True
