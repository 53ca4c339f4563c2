"""Work that is shared among processes of this machine. Its results come in the order of the tasks, and they are the
same as without processes."""

import multiprocessing
import os
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from common.errors import FedmosaicError, ShardError
from common.hardware.computing import cores
from common.lifetime import end_with

T = TypeVar("T")
R = TypeVar("R")
VARIABLE = "FEDMOSAIC_WORKERS"
"""Environment variable with the number of processes. The default is the number of cores that this process may use."""
WORTH_SECONDS = 5.0
"""Processes are started when the remaining work takes longer than this, because the first start takes seconds."""
PRELOADED = ["torch", "torch.utils.data", "pydantic", "PIL.Image", "soundfile"]
"""Modules that are imported once for all processes. They are packages of others, because another copy of this project
may be the installed one."""
EXITED = "exited unexpectedly"
"""Part of torch's message about a process that has ended."""


def workers() -> int:
    """The number of processes. With 0 or 1, this process does all work itself.

    Raises ShardError when the variable is not a number.
    """
    given = os.environ.get(VARIABLE, "")
    if given and not given.isdecimal():
        raise ShardError(f"{VARIABLE}={given!r} is not a number of processes")
    if multiprocessing.current_process().daemon:  # may not start processes
        return 0
    return int(given) if given else cores()


def in_order(work: Callable[[T], R], tasks: Sequence[T], portable: bool = True) -> Iterator[R]:
    """The results of `work` for the tasks. The first tasks are done in this process, and their time shows whether
    processes are worth their start. `work` must then be picklable. portable: whether it is.

    Raises the errors of `work`, and ShardError when a process ends.
    """
    count, spent = workers() if portable else 0, 0.0
    for done, task in enumerate(tasks):
        if count > 1 and done and spent / done * (len(tasks) - done) > WORTH_SECONDS:
            yield from _shared(work, tasks[done:], count)
            return
        started = time.perf_counter()
        result = work(task)
        spent += time.perf_counter() - started
        yield result


@dataclass(frozen=True)
class _Failed:
    """An error of `work`, sent as a value, because torch would replace its message by a traceback."""

    error: Exception


class _Tasks(Dataset[Any], Generic[T, R]):
    """Does the tasks that the data loader sends to its processes."""

    def __init__(self, work: Callable[[T], R]) -> None:
        self._work = work

    def __getitem__(self, task: T) -> R | _Failed:
        try:
            return self._work(task)
        except (FedmosaicError, OSError) as error:
            return _Failed(error)


def _shared(work: Callable[[T], R], tasks: Sequence[T], count: int) -> Iterator[R]:
    loader = DataLoader(
        _Tasks(work),
        batch_size=None,
        sampler=tasks,  # any sequence
        num_workers=min(count, len(tasks)),
        collate_fn=_unchanged,
        worker_init_fn=partial(_end_with, os.getpid()),
        multiprocessing_context=_context(),
        generator=torch.Generator(),  # else a number is drawn from the generator that the training uses
    )
    try:
        with _without_main(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create", UserWarning)  # more processes than cores
            results = iter(loader)
        for result in results:
            if isinstance(result, _Failed):
                raise result.error
            yield result
    except RuntimeError as error:
        if EXITED not in str(error):
            raise
        raise ShardError(
            "a process that prepares values has ended, probably because the memory is used up: "
            f"set {VARIABLE} to a smaller number, or to 1 to prepare the values without further processes"
        ) from error


def _end_with(owner: int, number: int) -> None:
    """End this process when its owner ends. torch waits for the end of the process that forks, which waits for this
    one."""
    threading.Thread(target=end_with, args=(owner,), daemon=True).start()


def _unchanged(result: R) -> R:
    return result


@cache
def _context() -> Any:
    """Processes are forked from a server process without threads, which is started once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


@contextmanager
def _without_main() -> Iterator[None]:
    """Hide the main module while processes start, because each of them would run the user's script again."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
