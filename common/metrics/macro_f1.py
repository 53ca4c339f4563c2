"""Macro F1: the mean of the classes' F1."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.confusion import Decisions, f1
from common.tasks.observed import Part


class MacroF1(Metric):
    """F1 by class, and its mean over the classes that occur or are predicted."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """F1 by class."""
        return f1(Decisions.of(part))
