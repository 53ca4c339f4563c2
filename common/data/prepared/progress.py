"""The progress of preparing: a bar on a terminal, lines of the log elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)
SECONDS = 10.0
"""Interval of the lines."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds a number of finished values."""
    with (_bar if sys.stderr.isatty() else _lines)(what, total) as add:
        yield add


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(f"preparing {what}", total=total)
        yield lambda count: shown.advance(task, count)


@contextmanager
def _lines(what: str, total: int) -> Iterator[Callable[[int], None]]:
    done, last = 0, time.monotonic()

    def add(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last >= SECONDS:
            last = time.monotonic()
            log.info("%s: %s of %s values are prepared", what, f"{done:,}", f"{total:,}")

    yield add
