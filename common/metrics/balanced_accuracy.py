"""Balanced accuracy, or unweighted average recall (UAR)."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.confusion import Decisions, ratio
from common.tasks.observed import Part


class BalancedAccuracy(Metric):
    """Single-label: the mean sensitivity of the classes that occur (K. H. Brodersen et al., ICPR 2010). Multi-label:
    by label the mean of sensitivity and specificity, and its mean over the labels."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """The mean of the recalls."""
        decisions = Decisions.of(part)
        recall = ratio(decisions.hits, decisions.examples)
        if part.counts.ndim == 2:
            return np.nanmean(recall)
        return (recall + ratio(decisions.rest, decisions.rest + decisions.false)) / 2
