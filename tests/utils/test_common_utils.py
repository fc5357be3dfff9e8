"""Files that are whole or absent, and errors that say what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from utils import common_utils
from utils.common_utils import (
    UserError,
    atomic_folder,
    atomic_write_lines,
    atomic_write_text,
    closest,
    read_json,
    read_jsonl,
    run_cli,
    sha256_file,
)

ROOT = Path(__file__).parents[2]


def write_folder(path: Path, content: str) -> None:
    with atomic_folder(path) as temporary:
        (temporary / "sub").mkdir()
        (temporary / "sub" / "file").write_text(content)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "parent" / "folder"
    with atomic_folder(path) as temporary:
        (temporary / "file").write_text("new")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert (path / "file").read_text() == "new"
    assert names(path.parent) == {"folder"}


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    write_folder(tmp_path / "folder", "old")
    (tmp_path / "folder" / "only_in_old").touch()
    write_folder(tmp_path / "folder", "new")
    assert names(tmp_path) == {"folder"}
    assert names(tmp_path / "folder") == {"sub"}
    assert (tmp_path / "folder/sub/file").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_old_folder(tmp_path, error):
    write_folder(tmp_path / "folder", "old")

    def broken_off():
        with atomic_folder(tmp_path / "folder") as temporary:
            (temporary / "file").touch()
            raise error

    with pytest.raises(error):
        broken_off()
    assert names(tmp_path) == {"folder"}
    assert (tmp_path / "folder/sub/file").read_text() == "old"


@pytest.mark.parametrize("failing_call", [1, 2])
def test_an_error_while_renaming_leaves_one_whole_folder(tmp_path, monkeypatch, failing_call):
    write_folder(tmp_path / "folder", "old")
    calls, replace = [], os.replace

    def fail_once(source, target):
        calls.append(source)
        if len(calls) == failing_call:
            raise OSError("disk trouble")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="disk trouble"):
        write_folder(tmp_path / "folder", "new")
    assert names(tmp_path) == {"folder"}
    assert (tmp_path / "folder/sub/file").read_text() == "old"


KILLED = """
import os, signal, sys
from pathlib import Path
from utils import common_utils
calls, replace = [], os.replace
def killed(source, target):
    calls.append(source)
    if len(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = killed
with common_utils.atomic_folder(Path(sys.argv[1])) as temporary:
    (temporary / "file").write_text("new")
"""


@pytest.mark.parametrize("killed_at_rename", [1, 2])
def test_a_kill_between_the_renames_loses_nothing(tmp_path, killed_at_rename):
    path = tmp_path / "folder"
    write_folder(path, "old")
    arguments = [sys.executable, "-c", KILLED, str(path), str(killed_at_rename)]
    assert subprocess.run(arguments, cwd=ROOT, check=False).returncode == -9
    assert len(names(tmp_path)) == 2
    with atomic_folder(path) as temporary:
        assert (path / "sub/file").read_text() == "old", "the next use moves the old folder back"
        assert names(tmp_path) == {"folder", temporary.name}
        assert not any(temporary.iterdir())
    write_folder(path, "newer")
    assert (path / "sub/file").read_text() == "newer"
    assert names(tmp_path) == {"folder"}


def test_lines_that_fail_half_way_leave_the_old_file(tmp_path):
    path = tmp_path / "folder" / "file.jsonl"
    atomic_write_lines(path, ("one\n", "two\n"))
    assert path.read_text() == "one\ntwo\n"

    def failing():
        yield "three\n"
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        atomic_write_lines(path, failing())
    assert path.read_text() == "one\ntwo\n" and list(path.parent.iterdir()) == [path]


def test_text_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "file.txt"
    atomic_write_text(path, "Zürich\n")
    assert path.read_bytes() == "Zürich\n".encode()

    def fail(_path):
        raise OSError("disk full")

    monkeypatch.setattr(common_utils, "fsync_path", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write_text(path, "other")
    assert path.read_text(encoding="utf-8") == "Zürich\n"
    assert names(path.parent) == {"file.txt"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1,\n "b" 2}', r"file.json:2: not valid JSON \(Expecting ':' delimiter at column 6\)"),
        (b'{"a": "\xe9"}', r"file.json: not valid UTF-8 \(.* at byte 7\)"),
        (None, r"file.json: no such file"),
    ],
)
def test_unreadable_json_is_named(tmp_path, content, message):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json(path)
    with pytest.raises(UserError, match=f"{tmp_path.name}: Is a directory"):
        read_json(tmp_path)


def test_json_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "file.jsonl"
    records = [{"text": "one\u2028line\u0085still"}, {"text": "ä"}]
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records) + "\n\n", encoding="utf-8")
    assert list(read_jsonl(path)) == records


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": ', r"file.jsonl:3: not valid JSON \(Expecting value at column 6\)"),
        (b"[1]", r"file.jsonl:3: expected a JSON object, found list"),
        (b'{"a": "\xff"}', r"file.jsonl:3: not valid UTF-8 \(.* at byte 7\)"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "file.jsonl"
    path.write_bytes(b'{"a": 1}\n\n' + line + b"\n")
    lines = read_jsonl(path)
    assert next(lines) == {"a": 1}
    with pytest.raises(UserError, match=message):
        next(lines)
    with pytest.raises(UserError, match="missing.jsonl: no such file"):
        next(read_jsonl(tmp_path / "missing.jsonl"))
    with pytest.raises(UserError, match="Is a directory"):
        next(read_jsonl(tmp_path))


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_closest():
    assert closest("learning_rat", ["seed", "learning_rate"]) == " Did you mean 'learning_rate'?"
    assert closest("zzz", ["seed", "learning_rate"]) == ""


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (None, 0, ""),
        (3, 3, ""),
        (UserError("seed=-1: too low"), 2, "error: seed=-1: too low\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit(143), 143, ""),
    ],
)
def test_how_a_script_ends(capsys, outcome, code, message):
    def main():
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    with pytest.raises(SystemExit) as caught:
        run_cli(main)
    assert caught.value.code == code
    assert capsys.readouterr().err == message


def test_a_bug_keeps_its_traceback():
    def main():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_cli(main)


def test_a_closed_pipe_is_no_error():
    script = "from utils.common_utils import run_cli\nrun_cli(lambda: [print('x' * 100) for _ in range(99999)] and 0)"
    command = f'{sys.executable} -c "{script}" | head -1; echo ${{PIPESTATUS[0]}}'
    result = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert result.stdout.split() == ["x" * 100, "0"]
