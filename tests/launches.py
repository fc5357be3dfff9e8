"""Helpers for tests that start several training processes: start, watch, kill, and see that nothing is left."""

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
START_SECONDS = 600
"""Longest wait for a step or an end, on a busy machine; a launch takes about 15 s on two idle cores."""
EXTENSIONS = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or ROOT / ".torch_extensions")
"""Where DeepSpeed's compiled part is kept from one run of the tests to the next."""
BUILDERS = ("ShareMemCommBuilder", "CPUAdamBuilder")
MISSING = "DeepSpeed is not installed" if find_spec("deepspeed") is None else ""
MISSING = MISSING or ("" if shutil.which("g++") else "DeepSpeed needs g++ on a processor")
"""Why launches with DeepSpeed cannot be tested; empty if they can."""


def start_compiling() -> None:
    """Start to compile DeepSpeed's parts for the processor, minutes in which the first launches would have to wait."""
    for lock in EXTENSIONS.glob("*/lock"):
        lock.unlink()  # of a build that was cut off; nobody else builds in the folder of these tests
    for builder in BUILDERS:
        subprocess.Popen(**_loading(builder))


@functools.cache
def wait_until_compiled() -> None:
    """Return once DeepSpeed's parts can be loaded, which waits for a build that has begun and makes up for one that has
    not."""
    for builder in BUILDERS:
        subprocess.run(**_loading(builder), check=True)


def _loading(builder: str) -> dict:
    """Arguments of a process that loads a part of DeepSpeed, compiling it where need be."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = f"from deepspeed.ops.op_builder.cpu import {builder}; {builder}().load()"
    return {
        "args": [sys.executable, "-c", program],
        "env": os.environ | {"TORCH_EXTENSIONS_DIR": str(EXTENSIONS), "DS_ACCELERATOR": "cpu", "PATH": path},
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }


class Launch:
    """A training started by train_local_machine.sh (or another script), with its processes."""

    def __init__(
        self,
        config: Path,
        *arguments: str,
        engine: str = "ddp",
        processes: int = 2,
        script: str = "train_local_machine.sh",
        prefix: tuple[str, ...] = (),
        **variables: str,
    ):
        if engine.startswith("ds_"):
            wait_until_compiled()
        self.log = config.with_name(f"launch-{time.monotonic_ns()}.log")
        environment = os.environ | {
            "PYTHON": sys.executable,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "PROCESSES_PER_NODE": str(processes),
            "LAUNCH_CONFIG": f"local/{engine}.yaml",
            "TORCH_EXTENSIONS_DIR": str(EXTENSIONS),
            # The test models are so small that ZeRO-3 would keep all their weights whole.
            "E2LLM_ZERO3_PERSISTENCE_THRESHOLD": "0",
        }
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*prefix, "sh", script, "--config", str(config), *arguments],
                cwd=ROOT,
                env=environment | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        """What all processes have written so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def family(self) -> list[psutil.Process]:
        """All processes of the launch, down to the loaders' workers."""
        try:
            root = psutil.Process(self.process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def ranks(self) -> list[psutil.Process]:
        """The training processes, in the order of their ranks."""
        ranks = []
        for process in self.family():
            try:
                environment = process.environ()
                if "train_accelerate.py" in process.cmdline() and "RANK" in environment:
                    ranks.append((int(environment["RANK"]), process.create_time(), process))
            except psutil.NoSuchProcess:
                continue
        first = {}
        for rank, _, process in sorted(ranks, key=lambda item: item[:2]):
            first.setdefault(rank, process)  # a loader's worker has the same command line and is younger
        return list(first.values())

    def wait_for_step(self, output_dir: Path, step: int) -> None:
        """Return once a step of training stands in metrics.jsonl."""
        path = output_dir / "metrics.jsonl"
        deadline = time.monotonic() + START_SECONDS
        while f'"step": {step},' not in (path.read_text() if path.exists() else ""):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, f"step {step} was never logged:\n{self.text}"
            time.sleep(0.01)

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        return self.process.wait(START_SECONDS)


def all_gone(processes: list[psutil.Process], seconds: float = 45) -> bool:
    """Tell whether all processes end within some time."""
    _, alive = psutil.wait_procs(processes, seconds)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def losses(output_dir: Path) -> dict[int, float]:
    """The training losses of a run by step."""
    lines = map(json.loads, (output_dir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if line["split"] == "train"}
