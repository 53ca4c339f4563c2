"""Weighted F1: the mean of the classes' F1, weighted by their examples."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.confusion import Decisions, f1
from common.tasks.observed import Part


class WeightedF1(Metric):
    """The mean of the classes' F1, weighted by the number of examples of each class."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """sum_c n_c F1_c / sum_c n_c."""
        decisions = Decisions.of(part)
        total = decisions.examples.sum()
        return np.nansum(decisions.examples * f1(decisions)) / total if total else np.nan
