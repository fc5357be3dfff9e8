"""The starter of launches: signals go to the processes, their exit code comes back."""

import signal
import subprocess
import sys
import time

import pytest

from local.launch import training_exit_code
from tests.pefts.conftest import ROOT


@pytest.mark.parametrize(
    ("left", "launcher", "code"),
    [
        ({}, 0, 0),
        ({"0": 143, "1": 143}, 1, 143),
        ({"0": 0, "1": 3}, 1, 3),
        ({"10": 3, "2": 2}, 1, 2),
        ({}, 1, 1),
        ({}, -9, 137),
    ],
)
def test_exit_codes(tmp_path, left, launcher, code):
    for name, value in left.items():
        (tmp_path / name).write_text(str(value))
    assert training_exit_code(tmp_path, launcher) == code


LAUNCHER = """
import subprocess, sys, os
# As torchrun: the processes in sessions of their own, and its exit code always 1.
worker = '''
import os, pathlib, signal, time
def stop(number, frame):
    pathlib.Path(os.environ["E2LLM_EXIT_CODES"], "0").write_text(str(128 + number))
    os._exit(128 + number)
signal.signal(signal.SIGTERM, stop); signal.signal(signal.SIGINT, stop)
print("ready", flush=True)
time.sleep(60)
'''
child = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
sys.exit(1 if child.wait() else 0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_processes(tmp_path, number):
    """With a launcher in the place of accelerate's, which takes seconds to start."""
    package = tmp_path / "accelerate/commands"
    package.mkdir(parents=True)
    for folder in (package, package.parent):
        (folder / "__init__.py").touch()
    (package / "launch.py").write_text(LAUNCHER)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); from local.launch import main; sys.exit(main())",
        ],
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
