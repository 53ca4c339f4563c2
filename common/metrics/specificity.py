"""Specificity: the share of other examples that are not taken for the class."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.confusion import Decisions, ratio
from common.tasks.observed import Part


class Specificity(Metric):
    """The share of the examples without a class that are not predicted as the class, and its mean over the classes."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """TN / (TN + FP) by class."""
        decisions = Decisions.of(part)
        return ratio(decisions.rest, decisions.rest + decisions.false)
