"""Prediction files of one and of several processes, and what a killed one leaves."""

import errno
import fcntl
import json
import os

import pytest

from pefts import prediction_files
from pefts.prediction_files import PredictionFiles
from utils.common_utils import UserError


def record(number: int) -> dict:
    return {"task": "t", "mode": "model", "id": str(number), "prediction": "a\u2028b"}


def numbers(path) -> list[str]:
    return [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_a_single_process_writes_the_file_itself(tmp_path):
    files = PredictionFiles(tmp_path)
    assert files.answered() == set()
    files.join()
    assert files.existing() == []
    files.append([record(0)])
    files.append([record(1)])
    assert [path.name for path in files.existing()] == ["predictions.jsonl"]
    assert files.answered() == {("t", "model", "0"), ("t", "model", "1")}


def test_parts_are_joined_and_torn_ends_cut_off(tmp_path):
    PredictionFiles(tmp_path).append([record(0)])
    for index in range(3):
        PredictionFiles(tmp_path, index, 3).append([record(10 + index), record(20 + index)])
    part = tmp_path / "predictions.part-00001.jsonl"
    part.write_bytes(part.read_bytes()[:-9])
    with open(tmp_path / "predictions.jsonl", "ab") as file:
        file.write(b'{"task": "t", "mo')
    files = PredictionFiles(tmp_path, 0, 2)
    assert len(files.existing()) == 4
    files.join()
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert numbers(files.path) == ["0", "10", "20", "11", "12", "22"]
    files.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_lone_file_loses_its_torn_end(tmp_path):
    files = PredictionFiles(tmp_path)
    files.append([record(0)])
    with open(files.path, "ab") as file:
        file.write(b'{"ta')
    files.join()
    assert numbers(files.path) == ["0"]


def test_two_evaluations_cannot_be_at_work_in_a_folder(tmp_path):
    first, second = PredictionFiles(tmp_path, 0, 2), PredictionFiles(tmp_path, 1, 2)
    first.lock(alone=True)
    with pytest.raises(UserError, match="another evaluation is at work in this folder"):
        second.lock(alone=False)
    first.lock(alone=False)
    second.lock(alone=False)
    first.unlock()
    with pytest.raises(UserError, match="another evaluation is at work"):
        first.lock(alone=True)
    second.unlock()
    first.lock(alone=True)


def test_locks_are_taken_as_nfs_wants_them(tmp_path, monkeypatch):
    """NFS maps flock to locks of a file's bytes, which need it open for reading or for writing, by their kind."""
    taken = []

    def nfs_flock(file, operation):
        access = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE
        refused = os.O_WRONLY if operation & fcntl.LOCK_SH else os.O_RDONLY
        if access == refused:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        taken.append(operation)

    monkeypatch.setattr(prediction_files.fcntl, "flock", nfs_flock)
    files = PredictionFiles(tmp_path)
    files.lock(alone=True)
    files.lock(alone=False)
    assert len(taken) == 2


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(prediction_files.fcntl, "flock", no_locks)
    with pytest.raises(UserError, match=rf"output_dir='{tmp_path}': .lock cannot be locked there \(No locks available"):
        PredictionFiles(tmp_path).lock(alone=False)
    with pytest.raises(UserError, match=r"output_dir='.*none': .lock cannot be locked there \(No such file"):
        PredictionFiles(tmp_path / "none").lock(alone=False)
