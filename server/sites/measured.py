"""The examples that figures were measured on: too few of them, or classes without any."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.words.units import few

FEWEST = 30
"""With fewer examples, one example changes the accuracy by more than 3 points."""
LISTED = 5
"""The maximum number of classes in a sentence."""


def measured_on_little(figures: Mapping[str, Any], classes: Sequence[str], on: str) -> Iterable[str]:
    """Sentences about the examples that figures were measured on.

    figures: those of all modalities together, in metrics.jsonl. on: "validation" or "test".
    """
    count, by_class = figures.get("examples"), _mapping(figures.get("by_class")).get("sensitivity")
    if not isinstance(count, int) or count < 1:
        return
    examples = f"{count} {on} example{'s' * (count != 1)}"
    remedy = "a test shard with all classes (--test-shard)"
    remedy = f"a larger data.validation, or {remedy}," if on == "validation" else remedy
    if isinstance(by_class, list) and len(by_class) == len(classes):
        absent = [repr(name) for name, share in zip(classes, by_class, strict=True) if share is None]
        if absent:
            yield (
                f"the figures contain nothing about the class{'es' * (len(absent) != 1)} {few(absent, LISTED)}: none "
                f"of the {examples} belongs there; {remedy} measures every class"
            )
    if count < FEWEST:
        yield f"the figures were measured on {examples} only: one example is {1 / count:.1%} of them"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
