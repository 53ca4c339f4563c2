"""Names that come from sites and their files, as they may be shown."""

from typing import Any


def printable(value: Any) -> str:
    """What XML cannot hold, a reader cannot see, or would steer a terminal becomes a dot."""
    return "".join(c if c.isprintable() else "·" for c in str(value))
