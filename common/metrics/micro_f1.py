"""Micro F1: F1 of all decisions about labels together."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import MULTI, Metric
from common.tasks.confusion import Decisions
from common.tasks.observed import Part


class MicroF1(Metric):
    """F1 of all decisions about labels together. With one label per example it would be the accuracy."""

    tasks: ClassVar[frozenset[str]] = frozenset({MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """2 TP / (2 TP + FP + FN), over all labels."""
        decisions = Decisions.of(part)
        hits = 2 * decisions.hits.sum()
        whole = hits + decisions.false.sum() + decisions.missed.sum()
        return hits / whole if whole else np.nan
