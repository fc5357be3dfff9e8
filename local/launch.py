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


def die_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent of this process is gone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def forward_signals(launcher: subprocess.Popen) -> None:
    """Pass SIGTERM and SIGINT on to the launcher's children."""

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(launcher.pid).children()
            if not children:  # it is still starting
                launcher.send_signal(number)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)


def training_exit_code(folder: Path, launcher_code: int) -> int:
    """Return 0 if the launcher does, else the code of the process with the lowest local rank that left one."""
    if launcher_code == 0:
        return 0
    left = sorted(folder.iterdir(), key=lambda path: int(path.name))
    codes = [int(path.read_text() or 1) for path in left]
    return next((code for code in codes if code), 1 if launcher_code > 0 else 128 - launcher_code)


def main() -> int:
    """Start, wait, and return the exit code."""
    with tempfile.TemporaryDirectory(prefix="e2llm-launch-") as folder:
        command = [sys.executable, "-m", "accelerate.commands.launch", *sys.argv[1:]]
        # A session of its own: Ctrl-C reaches this process alone, which passes it on once.
        launcher = subprocess.Popen(
            command, env=os.environ | {EXIT_CODES: folder}, start_new_session=True, preexec_fn=die_with_parent
        )
        forward_signals(launcher)
        return training_exit_code(Path(folder), launcher.wait())


if __name__ == "__main__":
    sys.exit(main())
