"""RMSE: the root mean squared error."""

from typing import Any, ClassVar

import numpy as np

from common.metrics.base import REGRESSION, Metric
from common.tasks.observed import Part
from common.tasks.regression import SUMS


class RMSE(Metric):
    """The root mean squared error of each target, in its unit, and the mean over the targets."""

    tasks: ClassVar[frozenset[str]] = frozenset({REGRESSION})
    part: ClassVar[str] = "answers"
    higher_is_better: ClassVar[bool] = False

    def of(self, part: Part) -> Any:
        """sqrt(mean e^2) by target."""
        return np.sqrt(part.sums[:, SUMS.index("squared_error")] / part.counts.sum())
