"""Specificity at a threshold of the probability."""

from typing import Any

from common.metrics.base import ThresholdMetric
from common.tasks.confusion import ratio
from common.tasks.histogram import above
from common.tasks.observed import Part


class SpecificityAt(ThresholdMetric):
    """The share of the examples without a class whose probability of the class is below a threshold, and its mean over
    the classes."""

    def of(self, part: Part) -> Any:
        """TN / (TN + FP) by class."""
        negatives = part.counts[0].sum(1)
        return ratio(negatives - above(part, self.threshold)[0], negatives)
