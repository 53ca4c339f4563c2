"""Pearson's correlation of predictions and values."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import REGRESSION, Metric
from common.tasks.observed import Part
from common.tasks.regression import SUMS


class Pearson(Metric):
    """Pearson's correlation of the predictions and the values of each target, and the mean over the targets."""

    tasks: ClassVar[frozenset[str]] = frozenset({REGRESSION})
    part: ClassVar[str] = "answers"

    def of(self, part: Part) -> Any:
        """cov(y, p) / (std(y) std(p)) by target; NaN when either is constant."""
        count = part.counts.sum()
        y, yy, p, pp, yp = (part.sums[:, SUMS.index(name)] / count for name in SUMS[2:])
        spread_y, spread_p = yy - y**2, pp - p**2
        defined = (spread_y > 1e-12 * yy) & (spread_p > 1e-12 * pp)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(defined, (yp - y * p) / np.sqrt(spread_y * spread_p), np.nan)
