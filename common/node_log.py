"""Our lines in a node's log."""

import sys
import time

MARK = "fedmosaic: "
"""How they begin among Flower's: `fedmosaic node` shows these, and keeps the others in a file."""


def say(text: str) -> None:
    """Write a line."""
    print(f"{MARK}{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
