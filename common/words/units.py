"""Formats numbers and lists for people."""

from collections.abc import Sequence


def human(size: float) -> str:
    """A number of bytes in decimal units, e.g. "2.0 MB"."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def few(names: Sequence[str], most: int) -> str:
    """The first `most` names and the number of the others, e.g. "a, b and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
