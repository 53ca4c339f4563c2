"""MAE: the mean absolute error."""

from typing import Any, ClassVar

from common.metrics.base import REGRESSION, Metric
from common.tasks.observed import Part
from common.tasks.regression import SUMS


class MAE(Metric):
    """The mean absolute error of each target, in its unit, and the mean over the targets."""

    tasks: ClassVar[frozenset[str]] = frozenset({REGRESSION})
    part: ClassVar[str] = "answers"
    higher_is_better: ClassVar[bool] = False

    def of(self, part: Part) -> Any:
        """mean |e| by target."""
        return part.sums[:, SUMS.index("absolute_error")] / part.counts.sum()
