"""Progress bars and status lines."""

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
    """The columns of a bar: description, bar, count, elapsed time and remaining time."""
    return (
        description(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def working(doing: str) -> Status:
    """A status line for `with`. It appears only if standard error is a terminal."""
    return terminal(stderr=True).status(doing)


def tracked(items: Sequence[Item], doing: str) -> Iterator[Item]:
    """Yield the items, and count them with a bar if standard error is a terminal."""
    console = terminal(stderr=True)
    with Progress(*counted(), console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from progress.track(items, description=doing)
