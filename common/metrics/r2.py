"""R2: the coefficient of determination."""

from typing import Any, ClassVar

from common.metrics.base import REGRESSION, Metric
from common.tasks.observed import Part
from common.tasks.regression import determination


class R2(Metric):
    """The coefficient of determination of each target, and its mean: 1 for perfect predictions, 0 for the mean of the
    values as prediction."""

    tasks: ClassVar[frozenset[str]] = frozenset({REGRESSION})
    part: ClassVar[str] = "answers"

    def of(self, part: Part) -> Any:
        """1 - sum e^2 / sum (y - mean y)^2 by target."""
        return determination(part)
