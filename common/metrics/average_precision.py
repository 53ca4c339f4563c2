"""Average precision: the area under the precision-recall curve, one class against the rest."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.histogram import precision_errors, precisions
from common.tasks.observed import Part


class AveragePrecision(Metric):
    """The average precision of each class against the rest, and its mean over the classes that occur. From sites it has
    the error of their histograms, on the server's test shard it is exact."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "scores"

    def of(self, part: Part) -> Any:
        """By class."""
        return precisions(part)

    def error(self, part: Part) -> float:
        """The mean of the classes' largest errors."""
        return float(np.nan_to_num(self.mean(precision_errors(part), part)))
