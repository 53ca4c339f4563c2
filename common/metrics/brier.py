"""The Brier score: the mean squared error of the probabilities."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.observed import Part


class Brier(Metric):
    """The mean squared error of the probabilities (G. W. Brier, 1950). Single-label: summed over the classes, so from 0
    to 2. Multi-label: the mean over the labels, so from 0 to 1."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "answers"
    higher_is_better: ClassVar[bool] = False

    def of(self, part: Part) -> Any:
        """The mean over the examples."""
        return part.sums[0] / part.counts.sum()
