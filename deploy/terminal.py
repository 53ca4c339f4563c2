"""The terminal of the commands. It prints names of sites, classes and files as plain text, without markup."""

import sys
from typing import Any

from rich.console import Console
from rich.progress import TextColumn


def terminal(**options: Any) -> Console:
    """A console that prints square brackets and colons unchanged. In a notebook it prints plain text without bars."""
    if "ipykernel" in sys.modules:  # it sets FORCE_COLOR, which rich takes for a terminal
        options = {"force_terminal": False, **options}
    return Console(markup=False, emoji=False, force_jupyter=False, **options)


def description() -> TextColumn:
    """The column with a bar's description."""
    return TextColumn("{task.description}", markup=False)
