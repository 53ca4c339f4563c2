"""Labels as they are written in a shard.

single-label   "cat"                a text, one of the classes
multi-label    ["cough", "fever"]   the labels that apply, also none: []
regression     63.5 or [63.5, 1.2]  one number for each target
"""

import math
import sys
from collections.abc import Collection
from typing import Any

from common.config.task import TaskName

Label = str | tuple[str, ...] | tuple[float, ...]
"""The label of an example. "" if it has none, for every task."""
NO_LABEL = ""


def read_label(task: TaskName, given: Any, classes: Collection[str], labelled: bool = True) -> Label:
    """The label in a line of a shard's metadata, or in a cell of a table. labelled: whether the label must be one of
    the classes even if there are no classes.

    Raises ValueError with the mistake.
    """
    if task == "regression":
        return _numbers(given, len(classes)) if classes or labelled else NO_LABEL
    known = classes if labelled or classes else None
    if task == "single-label":
        if not isinstance(given, str):
            raise ValueError('the line needs "id" and "label", both as text')
        return _class(given, known)
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise ValueError(f'"label" must be a list of texts, because the shard is multi-label, not {given!r}')
    if len(set(given)) != len(given):
        raise ValueError(f"label {given!r} names a label twice")
    read = tuple(_class(one, known) for one in given)
    return read if known is not None else NO_LABEL


def _class(given: str, known: Collection[str] | None) -> str:
    if known is None:
        return NO_LABEL
    if given not in known:
        raise ValueError(f"label {given!r} is not among the classes of shard.json")
    return sys.intern(given)  # one text per class, not per example


def _numbers(given: Any, count: int) -> tuple[float, ...]:
    values = given if isinstance(given, list) else [given]
    if any(isinstance(one, bool) or not isinstance(one, int | float) or not math.isfinite(one) for one in values):
        raise ValueError(f'"label" must be a number, because the shard is for regression, not {given!r}')
    if len(values) != count:
        raise ValueError(f'"label" has {len(values)} numbers, but shard.json has {count} targets (classes)')
    return tuple(map(float, values))


def as_written(label: Label) -> Any:
    """The JSON value of a label in a shard: the opposite of `read_label`."""
    if isinstance(label, str):
        return label
    numbers = bool(label) and isinstance(label[0], float)
    return label[0] if numbers and len(label) == 1 else list(label)


def in_words(label: Label) -> str:
    """A label as a short text."""
    if isinstance(label, str):
        return label
    return ", ".join(f"{one:g}" if isinstance(one, float) else one for one in label) or "none"


def names_in(task: TaskName, label: Label) -> tuple[str, ...]:
    """The classes that a label contains; empty for regression and for an example without a label."""
    if task == "regression" or label == NO_LABEL:
        return ()
    return (label,) if isinstance(label, str) else tuple(map(str, label))
