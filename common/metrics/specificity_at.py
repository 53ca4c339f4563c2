"""Specificity at a threshold of the probability."""

from typing import Any, ClassVar

from pydantic import Field

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.confusion import ratio
from common.tasks.histogram import above
from common.tasks.observed import Part


class SpecificityAt(Metric):
    """The share of the examples without a class whose probability of the class is below a threshold, and its mean over
    the classes."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "scores"

    threshold: float = Field(0.5, gt=0, lt=1, multiple_of=0.01)
    """The threshold, a multiple of 0.01, because sites send histograms with bins of this width."""

    def of(self, part: Part) -> Any:
        """TN / (TN + FP) by class."""
        negatives = part.counts[0].sum(1)
        return ratio(negatives - above(part, self.threshold)[0], negatives)
