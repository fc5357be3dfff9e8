"""The checkpoints of a run: written whole or not at all, found again, pruned.

    checkpoints/step-000500/   the model (`model.checkpoint`)
                               optimizer.safetensors    AdamW's state by parameter name
                               trainer_state.json       step, best step and loss, open log window, ...
                latest, best   links to the newest and the best

A step's folder appears under its name once it is complete.
"""

import contextlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from model.checkpoint import save_model, verify_manifest, write_manifest
from model.pro_model import E2LLM
from utils.common_utils import UserError, atomic_folder, read_json

logger = logging.getLogger(__name__)

STATE_FILE = "trainer_state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
_STEP_NAME = re.compile(r"step-(\d{6,})")


@dataclass
class RunCheckpoints:
    """The checkpoint folder of one run."""

    folder: Path
    keep_last: int

    def path(self, step: int) -> Path:
        """Return where the checkpoint after `step` optimizer steps stands."""
        return self.folder / f"step-{step:06d}"

    def steps(self) -> list[int]:
        """List the steps that have a folder, oldest first."""
        if not self.folder.is_dir():
            return []
        names = (_STEP_NAME.fullmatch(item.name) for item in self.folder.iterdir() if item.is_dir())
        return sorted(int(name.group(1)) for name in names if name)

    def save(
        self,
        model: E2LLM,
        optimizer_tensors: dict[str, torch.Tensor],
        state: dict,
        weights: dict[str, dict[str, torch.Tensor]] | None = None,
    ) -> Path:
        """Write a checkpoint after `state["step"]` steps, point `best` and `latest` as its state says, prune others.

        `weights` are `model.checkpoint.model_tensors`, for a model that is sharded over processes.
        """
        path = self.path(state["step"])
        with atomic_folder(path) as temporary:
            save_model(model, temporary, weights)
            save_file(optimizer_tensors, temporary / OPTIMIZER_FILE)
            (temporary / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
            write_manifest(temporary)
        self.link(state)
        self._prune(state["step"])
        return path

    def link(self, state: dict) -> None:
        """Point `best` and `latest` to the steps in a checkpoint's state, as far as their checkpoints stand here."""
        for name, step in (("best", state["best_step"]), ("latest", state["step"])):
            if step is not None and self.path(step).is_dir():
                self._link(name, self.path(step))

    def put_back(self) -> None:
        """Put a checkpoint back in its place that a killed process had moved aside to write it anew.

        Any number of processes may do so at once, while none writes.
        """
        for aside in self.folder.glob(".step-*.old"):
            with contextlib.suppress(OSError):  # the new one is in its place, or another process was faster
                os.rename(aside, self.folder / aside.name.removeprefix(".").removesuffix(".old"))

    def newest_complete(self) -> Path | None:
        """Return the newest undamaged checkpoint, saying which newer ones were passed over and why."""
        for step in reversed(self.steps()):
            try:
                verify_manifest(self.path(step))
                return self.path(step)
            except UserError as error:
                logger.warning("skipping the checkpoint of step %d: %s", step, error)
        return None

    def target(self, link: str) -> Path | None:
        """Return the checkpoint that `latest` or `best` points to."""
        path = self.folder / link
        return path.resolve() if path.exists() else None

    def _link(self, name: str, target: Path) -> None:
        temporary = self.folder / f".{name}.tmp"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        os.replace(temporary, self.folder / name)

    def _prune(self, newest: int) -> None:
        """Remove older checkpoints, damaged ones of later steps, and what killed processes left behind."""
        kept = {self.path(step) for step in [step for step in self.steps() if step <= newest][-self.keep_last :]}
        kept |= {self.folder / path.name for path in (self.target("best"), self.target("latest")) if path}
        for step in self.steps():
            if self.path(step) not in kept:
                shutil.rmtree(self.path(step))
        for leftover in self.folder.glob(".step-*"):
            shutil.rmtree(leftover)


def read_trainer_state(checkpoint: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """Return the trainer's state and the optimizer's tensors of a checkpoint.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        return read_json(checkpoint / STATE_FILE), load_file(checkpoint / OPTIMIZER_FILE)
    except FileNotFoundError:
        raise UserError(f"{checkpoint / OPTIMIZER_FILE}: missing, so training cannot continue from here") from None
    except SafetensorError as error:
        raise UserError(f"{checkpoint / OPTIMIZER_FILE}: damaged ({error})") from None
