"""Makes text from others (sites, servers, their files) safe to show on a terminal, in a log or on a page."""

from typing import Any

PLAIN = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]*$"
"""Text without control characters and without marks that change the direction of writing, because terminals and pages
show it."""


def printable(value: Any) -> str:
    """The text, in which a dot replaces each character that is invisible, is not allowed in XML, controls a terminal,
    or changes the direction of writing."""
    return "".join(c if c.isprintable() else "·" for c in str(value))


def of_others(text: str, most: int) -> str:
    """Lines of text from others: printable, and cut after `most` characters."""
    cut = text if len(text) <= most else f"{text[:most]} ..."
    return "\n".join(map(printable, cut.split("\n")))
