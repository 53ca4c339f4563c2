"""The numbers of a round's line or of a summary, by name."""

from collections.abc import Iterator, Mapping
from typing import Any


def scalars(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of nested mappings by tag, e.g. test/audio/accuracy. Lists, such as recalls by class, are skipped."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and name != "round":
            yield f"{prefix}{name}", value
