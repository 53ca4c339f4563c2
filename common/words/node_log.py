"""Writes fedmosaic's own lines into the log of a node."""

import sys
import time

from common.words.printable import printable

MARK = "fedmosaic: "
"""The beginning of fedmosaic's own lines. `fedmosaic node` shows these lines and writes Flower's lines to a file."""

LONGEST = 5000
"""The maximum number of characters of a line."""


def say(text: str) -> None:
    """Write a line. The text may contain text from a server, so only its printable characters are written."""
    print(f"{MARK}{time.strftime('%H:%M:%S')} {printable(text[:LONGEST])}", file=sys.stderr, flush=True)
