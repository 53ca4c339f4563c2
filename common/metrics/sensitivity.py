"""Sensitivity, or recall: the share of a class's examples that are found."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.confusion import Decisions, ratio
from common.tasks.observed import Part


class Sensitivity(Metric):
    """The share of the examples of a class that are predicted as the class, and its mean over the classes."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """TP / (TP + FN) by class."""
        decisions = Decisions.of(part)
        return ratio(decisions.hits, decisions.examples)
