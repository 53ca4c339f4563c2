"""Sensitivity at a threshold of the probability."""

from typing import Any

from common.metrics.base import ThresholdMetric
from common.tasks.confusion import ratio
from common.tasks.histogram import above
from common.tasks.observed import Part


class SensitivityAt(ThresholdMetric):
    """The share of the examples of a class whose probability of the class is at least a threshold, and its mean over
    the classes."""

    def of(self, part: Part) -> Any:
        """TP / (TP + FN) by class."""
        return ratio(above(part, self.threshold)[1], part.counts[1].sum(1))
