"""The starter of launches: signals go to the processes, their exit code comes back."""

import os
import signal
import subprocess
import sys
import time

import pytest

from local.launch import training_exit_code
from tests.pefts.conftest import ROOT


@pytest.mark.parametrize(
    ("left", "launcher", "received", "code"),
    [
        ({}, 0, [], 0),
        ({"0": 143, "1": 143}, 1, [15], 143),
        ({"0": 0, "1": 3}, 1, [], 3),
        ({"0": 3, "1": 2}, 1, [], 2),
        ({"10": 2, "2": 1}, 1, [], 1),
        ({}, 1, [15], 143),
        ({}, -9, [], 1),
    ],
)
def test_exit_codes(tmp_path, left, launcher, received, code):
    for name, value in left.items():
        (tmp_path / name).write_text(str(value))
    assert training_exit_code(tmp_path, launcher, received) == code


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
class ChildFailedError(Exception):
    pass
def main():
    child = subprocess.Popen([sys.executable, "-c", worker], start_new_session=True)
    if child.wait():
        raise ChildFailedError
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
        [sys.executable, ROOT / "local/launch.py"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == 128 + number
    assert "Traceback" not in process.stderr.read()
