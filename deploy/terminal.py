"""The terminal of the commands. It prints names of sites, classes and files as plain text, without markup."""

from typing import Any

from rich.console import Console
from rich.progress import TextColumn


def terminal(**options: Any) -> Console:
    """A console that prints square brackets and colons unchanged."""
    return Console(markup=False, emoji=False, **options)


def description() -> TextColumn:
    """The column with a bar's description."""
    return TextColumn("{task.description}", markup=False)
