"""The Jaccard index (intersection over union) of each class."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.confusion import Decisions, ratio
from common.tasks.observed import Part


class Jaccard(Metric):
    """TP / (TP + FP + FN) by class, and its mean over the classes."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """By class; NaN for a class that neither occurs nor is predicted."""
        decisions = Decisions.of(part)
        return ratio(decisions.hits, decisions.hits + decisions.missed + decisions.false)
