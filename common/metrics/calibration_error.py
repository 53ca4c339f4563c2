"""Expected calibration error (ECE)."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.observed import Part


class CalibrationError(Metric):
    """The expected calibration error with 15 equal bins (C. Guo et al., ICML 2017, https://arxiv.org/abs/1706.04599).
    Single-label: of the highest probability. Multi-label: of the probabilities of all labels together."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "calibration"
    higher_is_better: ClassVar[bool] = False

    def of(self, part: Part) -> Any:
        """sum_b n_b / n |share of right predictions in b - mean confidence in b|."""
        return np.abs(part.counts[1] - part.sums).sum() / part.counts.sum()
