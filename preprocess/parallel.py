"""Worker processes that give results in order, say so when one dies, and never outlive the run."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

from utils.common_utils import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")
OrderedMap = Callable[[Callable[[Task], Result], Sequence[Task]], Iterator[Result]]


@contextlib.contextmanager
def ordered_map(num_proc: int) -> Iterator[OrderedMap]:
    """Yield a `map(function, tasks)` that runs in `num_proc` processes and gives the results in the order of the tasks.

    With one process everything runs in this one. When the block ends with an exception, workers are stopped at once,
    before the exception goes on, so that none writes into a folder that is being removed.

    Raises:
        UserError: a worker died, which most likely means that memory ran out.
    """
    if num_proc == 1:
        yield map
        return
    not_ours = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(num_proc, multiprocessing.get_context("spawn"), _start_worker)
    try:
        yield functools.partial(_in_order, executor)
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - not_ours:
            process.terminate()
            process.join()
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                "a worker process was killed, most likely because memory ran out; lower --num_proc"
            ) from None
        raise
    finally:
        executor.shutdown()


def _in_order(
    executor: ProcessPoolExecutor, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[Result]:
    """Like `executor.map`, which cancels futures when it is left; that upsets a pool whose workers were stopped."""
    futures = deque(executor.submit(function, task) for task in tasks)
    while futures:
        yield futures.popleft().result()


def _start_worker() -> None:
    """Leave Ctrl-C to the main process, and end with it even if it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Turn SIGTERM into SystemExit(143) inside the block, so that `finally` clauses and context managers clean up."""

    def leave(signal_number: int, frame: object) -> None:
        raise SystemExit(128 + signal_number)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
