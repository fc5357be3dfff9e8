"""Errors a user can act on, atomic files, and how a script ends."""

import contextlib
import difflib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


class UserError(ValueError):
    """A mistake the user can mend: its message names the key or the file and line, the value, and the way out."""

    exit_code = 2


class LostProcessError(UserError):
    """Another process of a training is gone or does not answer: nothing to mend in the config, only to start again."""

    exit_code = 3


def run_cli(main: Callable[[], int | None]) -> None:
    """Run a script's `main`; a `UserError` ends it with its message alone and its exit code, Ctrl-C with 130."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of our output went away (`script | head`): nothing is wrong, and nothing can be printed any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def closest(name: str, known: Iterable[str]) -> str:
    """Return `" Did you mean 'x'?"` for the known name most like `name`, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {matches[0]!r}?" if matches else ""


def fsync_path(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write_text(path: Path, text: str) -> None:
    """Write `text` so that `path` holds either the old content or all of the new one, whatever happens meanwhile."""
    atomic_write_lines(path, [text])


def atomic_write_lines(path: Path, lines: Iterable[str]) -> None:
    """Like `atomic_write_text`, for texts that come one after another; line ends are the caller's."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(lines)
        fsync_path(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well, and is removed otherwise.

    Every file is synced before the rename, so the folder is complete or absent even after a power cut. A folder that
    stands at `path` already is moved aside until the new one is in its place. What an earlier process that was killed
    left behind is put right first: its temporary folder is removed, and a folder it had moved aside is moved back.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, aside = path.with_name(f".{path.name}.partial"), path.with_name(f".{path.name}.old")
    _tidy(path, temporary, aside)
    temporary.mkdir()
    try:
        yield temporary
        for item in sorted(temporary.rglob("*"), reverse=True):
            fsync_path(item)
        fsync_path(temporary)
        if path.exists():
            os.replace(path, aside)
        os.replace(temporary, path)
        fsync_path(path.parent)
    finally:
        _tidy(path, temporary, aside)


def _tidy(path: Path, temporary: Path, aside: Path) -> None:
    shutil.rmtree(temporary, ignore_errors=True)
    if aside.exists() and not path.exists():
        os.replace(aside, path)
    shutil.rmtree(aside, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal, reading it in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def read_text(path: Path, source: str = "") -> str:
    """Read a UTF-8 text file; `source` names the file in messages where its path alone does not say what it is for.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{source or path}: no such file") from None
    except OSError as error:
        raise UserError(f"{source or path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{source or path}: not valid UTF-8 ({error.reason} at byte {error.start})") from None


def read_json(path: Path) -> dict:
    """Read a JSON file.

    Raises:
        UserError: the file cannot be read or is not JSON; the message names the line and column.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from None


def read_jsonl(path: Path) -> Iterator[dict]:
    """Yield the objects of a JSONL file, one a line; blank lines are passed over.

    Raises:
        UserError: the file cannot be read, or a line is not a JSON object in UTF-8.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _parse_line(f"{path}:{number}", line)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _parse_line(place: str, line: bytes) -> dict:
    try:
        record = json.loads(line.decode("utf-8").rstrip())
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: not valid JSON ({error.msg} at column {error.colno})") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{place}: not valid UTF-8 ({error.reason} at byte {error.start})") from None
    if not isinstance(record, dict):
        raise UserError(f"{place}: expected a JSON object, found {type(record).__name__}")
    return record
