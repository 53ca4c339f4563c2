"""Confidence: the mean probability of the truth."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.observed import Part


class Confidence(Metric):
    """The mean probability that the model gives to the true class or, for multi-label, to the truth about each label.
    FedCMI compares modalities by it."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """The sum of the probabilities divided by their number."""
        return part.sums.sum() / part.counts.sum()
