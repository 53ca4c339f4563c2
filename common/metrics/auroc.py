"""AUROC: the area under the receiver operating characteristic, one class against the rest."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.histogram import area_errors, areas
from common.tasks.observed import Part


class AUROC(Metric):
    """The area under the ROC curve of each class against the rest, and its mean over the classes. From sites it has the
    error of their histograms, on the server's test shard it is exact."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "scores"

    def of(self, part: Part) -> Any:
        """By class."""
        return areas(part)

    def error(self, part: Part) -> float:
        """The mean of the classes' largest errors."""
        return float(np.nan_to_num(self.mean(area_errors(part), part)))
