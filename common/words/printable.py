"""What others wrote - sites, servers, their files - as it may be shown: on a terminal, in a log, on a page."""

from typing import Any


def printable(value: Any) -> str:
    """What XML cannot hold, a reader cannot see, or would steer a terminal or turn the direction of writing becomes a
    dot."""
    return "".join(c if c.isprintable() else "·" for c in str(value))


def of_others(text: str, most: int) -> str:
    """Lines that somebody else wrote: printable, and cut after so many characters."""
    cut = text if len(text) <= most else f"{text[:most]} ..."
    return "\n".join(map(printable, cut.split("\n")))
