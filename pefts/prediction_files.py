"""The files that the processes of an evaluation append their predictions to.

predictions.jsonl                   everything, at the end; the only file of a single process
predictions.part-00001.jsonl        what a process of several has answered; joined to the others at the end, or by the
                                    next run, on however many processes
"""

import fcntl
import json
import os
from collections.abc import Iterable
from pathlib import Path

from utils.common_utils import UserError, fsync_path, read_jsonl

PREDICTIONS_FILE = "predictions.jsonl"
LOCK_FILE = ".lock"


class PredictionFiles:
    """The prediction files of a folder, as one process sees them."""

    def __init__(self, folder: Path, process_index: int = 0, num_processes: int = 1):
        self.path = folder / PREDICTIONS_FILE
        self.own_path = self.path
        if num_processes > 1:
            self.own_path = folder / f"predictions.part-{process_index:05d}.jsonl"
        self._lock = None

    def lock(self, alone: bool) -> None:
        """Hold the folder until this process ends or `unlock`s: alone, to prepare it, or with the others of its run.

        A launcher that is killed may leave its processes at work; whoever starts anew would write beside them.

        Raises:
            UserError: another evaluation is at work here, or the folder's file system has no locks.
        """
        self.unlock()
        try:
            # For both, because NFS wants reading for a shared lock and writing for an exclusive one.
            self._lock = open(self.path.parent / LOCK_FILE, "a+")
            fcntl.flock(self._lock, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise UserError(
                f"output_dir={str(self.path.parent)!r}: another evaluation is at work in this folder, perhaps "
                "processes whose launcher was killed; end them or choose another output_dir"
            ) from None
        except OSError as error:
            self.unlock()
            raise UserError(
                f"output_dir={str(self.path.parent)!r}: {LOCK_FILE} cannot be locked there ({error.strerror}); choose "
                "an output_dir on a file system that can be written to and has locks"
            ) from None

    def unlock(self) -> None:
        """Let go of the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def existing(self) -> list[Path]:
        """The files that are there."""
        parts = sorted(self.path.parent.glob("predictions.part-*.jsonl"))
        return [path for path in (self.path, *parts) if path.exists()]

    def join(self) -> None:
        """Put everything into predictions.jsonl; for one process, while no other writes.

        A last line without its end, left by a killed process, is cut off. Killed in the middle, it leaves at worst
        lines that stand in two files, word for word the same.
        """
        existing = self.existing()
        if existing == [self.path]:
            os.truncate(self.path, self.path.read_bytes().rfind(b"\n") + 1)
        elif existing:
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            with open(temporary, "wb") as file:
                for path in existing:
                    content = path.read_bytes()
                    file.write(content[: content.rfind(b"\n") + 1])
            fsync_path(temporary)
            os.replace(temporary, self.path)
            for path in existing:
                if path != self.path:
                    path.unlink()

    def remove(self) -> None:
        """Remove all predictions."""
        for path in self.existing():
            path.unlink()

    def answered(self) -> set[tuple[str, str, str]]:
        """Return (task, mode, id) of every prediction in predictions.jsonl."""
        if not self.path.exists():
            return set()
        return {(record["task"], record["mode"], record["id"]) for record in read_jsonl(self.path)}

    def append(self, records: Iterable[dict]) -> None:
        """Append to this process's file, and hand it to the system: what is there survives the process."""
        with open(self.own_path, "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
