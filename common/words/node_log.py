"""Our lines in a node's log."""

import sys
import time

from common.words.printable import printable

MARK = "fedmosaic: "
"""How they begin among Flower's: `fedmosaic node` shows these, and keeps the others in a file."""

LONGEST = 5000
"""Characters of a line."""


def say(text: str) -> None:
    """Write a line; what a server sent may be part of it."""
    print(f"{MARK}{time.strftime('%H:%M:%S')} {printable(text[:LONGEST])}", file=sys.stderr, flush=True)
