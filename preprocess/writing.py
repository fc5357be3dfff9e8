"""What scripts that write data have in common: they replace nothing unasked, and end in order when stopped."""

import argparse
import contextlib
import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from preprocess.parallel import sigterm_as_exit
from utils.common_utils import UserError


@contextlib.contextmanager
def writing(path: Path, option: str, needs: str = "") -> Iterator[None]:
    """Run a block that writes to `path`: SIGTERM ends it as an exit, so that temporary files are removed.

    Args:
        option: the option that names `path`, for messages.
        needs: how much room the files take, for messages: "about twice the inputs' bytes".

    Raises:
        UserError: the system refused to read or to write a file.
    """
    with sigterm_as_exit():
        try:
            yield
        except BrokenPipeError:
            # Of what is printed, not of a file.
            raise
        except OSError as error:
            if error.filename is not None and not _belongs_to(path, Path(error.filename)):
                raise UserError(f"{error.filename}: {error.strerror}") from error
            if error.errno == errno.ENOSPC:
                way_out = f"the disk must hold {needs or 'the files'}; make room, or name another place"
            else:
                way_out = "name a place that can be written to"
            raise UserError(f"{option}={path}: {error}; {way_out}") from error


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """Add the option `--overwrite` to a script that writes files of records."""
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")


def check_new(paths: Iterable[Path], overwrite: bool) -> None:
    """Refuse to replace files unless that was asked for.

    Raises:
        UserError: one is there already.
    """
    there = [path for path in paths if path.exists()]
    if there and not overwrite:
        raise UserError(f"{there[0]}: exists; name another place, or replace it with --overwrite")


def _belongs_to(path: Path, file: Path) -> bool:
    """Whether a file is `path`, lies in it, is a temporary file for it, or a folder that it lies in."""
    file, path = file.absolute(), path.absolute()
    if path.parent not in file.parents:
        return file in path.parents
    name = file.relative_to(path.parent).parts[0]
    return name == path.name or name.startswith(f".{path.name}.")
