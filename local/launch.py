"""Starts training processes through `accelerate launch` and sees to their end: `launch.py [OPTIONS] SCRIPT [...]`.

What it adds to `accelerate launch`:
- SIGTERM and SIGINT go to the training processes themselves, which save and stop in their own time; the launcher would
  kill them after 30 seconds. A second signal ends them at once.
- Its exit code is that of the training (docs/distributed.md), which the launcher turns into 1.
- If it is itself killed, so is the launcher, and with it every process.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

PR_SET_PDEATHSIG = 1
EXIT_CODES = "E2LLM_EXIT_CODES"
IS_LAUNCHER = "--e2llm-launcher"
"""First argument of the child that becomes accelerate's launcher."""
LOST_PROCESS = 3
"""Exit code of a training process that has lost another."""


def run_launcher() -> None:
    """Be accelerate's launcher, without the traceback it ends with: the processes have said what is wrong."""
    from accelerate.commands.launch import main as accelerate_launch

    try:
        accelerate_launch()
    except Exception as error:
        if type(error).__name__ not in ("ChildFailedError", "SignalException"):
            raise
        sys.exit(1)


def die_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent of this process is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def forward_signals(launcher: subprocess.Popen) -> list[int]:
    """Pass SIGTERM and SIGINT on to the launcher's children; returns the list where they are noted."""
    received: list[int] = []

    def forward(number: int, _frame: object) -> None:
        received.append(number)
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(launcher.pid).children()
            if not children:  # it is still starting
                launcher.send_signal(signal.SIGTERM)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    return received


def training_exit_code(folder: Path, launcher_code: int, received: list[int]) -> int:
    """Return what the processes of this machine came to.

    Args:
        folder: holds a file with the exit code of each process that came to its own end, named by its local rank.
        launcher_code: of the launcher.
        received: signals that came in.

    Returns:
        0 if the launcher says so; else the code of the lowest rank that failed for a reason of its own; else that of
        one that lost another; else 128 + the signal, or 1.
    """
    if launcher_code == 0:
        return 0
    left = sorted(folder.iterdir(), key=lambda path: int(path.name))
    codes = [code for path in left if (code := int(path.read_text() or 1))]
    own = [code for code in codes if code != LOST_PROCESS]
    if own or codes:
        return (own or codes)[0]
    return 128 + received[0] if received else 1


def main() -> int:
    """Start, wait, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="e2llm-launch-") as folder:
        # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
        launcher = subprocess.Popen(
            [sys.executable, __file__, IS_LAUNCHER, *sys.argv[1:]],
            env=os.environ | {EXIT_CODES: folder},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        received = forward_signals(launcher)
        return training_exit_code(Path(folder), launcher.wait(), received)


if __name__ == "__main__":
    if sys.argv[1:2] == [IS_LAUNCHER]:
        del sys.argv[1]
        run_launcher()
    else:
        sys.exit(main())
