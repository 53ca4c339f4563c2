"""The look of a bar for work that is counted."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status

from deploy.terminal import description, terminal

Item = TypeVar("Item")


def counted() -> tuple[ProgressColumn, ...]:
    """What is done, a bar, how many of how many, the time it took and the time that is left."""
    return (
        description(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def working(doing: str) -> Status:
    """What goes on meanwhile, for `with`; shown where standard error is a terminal."""
    return terminal(stderr=True).status(doing)


def tracked(items: Sequence[Item], doing: str) -> Iterator[Item]:
    """The items one after the other, counted by a bar where standard error is a terminal."""
    console = terminal(stderr=True)
    with Progress(*counted(), console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(items, description=doing)
