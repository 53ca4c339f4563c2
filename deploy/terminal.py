"""What commands write to: a terminal that takes names of sites, classes and files for nothing but text."""

from typing import Any

from rich.console import Console
from rich.progress import TextColumn


def terminal(**options: Any) -> Console:
    """A console; square brackets and colons in what it is given have no meaning."""
    return Console(markup=False, emoji=False, **options)


def description() -> TextColumn:
    """What a bar is about."""
    return TextColumn("{task.description}", markup=False)
