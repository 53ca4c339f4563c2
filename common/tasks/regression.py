"""Regression: one number for each target."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from common.config.task import Regression, TaskName
from common.tasks.base import Task
from common.tasks.labels import Label
from common.tasks.observed import Numbers, Observed, Part, Shape

SUMS = ("squared_error", "absolute_error", "true", "true_squared", "predicted", "predicted_squared", "product")
"""The sums by target: e^2, |e|, y, y^2, p, p^2, y p, with e = p - y. y and p are distances from `mean`, so that their
squares are precise."""


class RegressionTask(Task):
    """The logits are the predicted values in standard units: value = mean + std * logit."""

    name: ClassVar[TaskName] = "regression"

    def __init__(self, classes: Sequence[str], options: Regression) -> None:
        super().__init__(classes)
        self.mean = np.array([options.mean.get(name, 0.0) for name in classes])
        self.std = np.array([options.std.get(name, 1.0) for name in classes])

    def scores(self, logits: Tensor) -> Tensor:
        """mean + std * u."""
        wide = logits.double()
        return wide * wide.new_tensor(self.std) + wide.new_tensor(self.mean)

    def decide(self, scores: Numbers) -> Label:
        """The values of the targets."""
        return tuple(map(float, scores))

    def probabilities(self, scores: Numbers) -> dict[str, float]:
        """None, because the scores are values."""
        return {}

    def observe(self, scores: Numbers, targets: Numbers, exact: bool = False) -> dict[str, Observed]:
        """Part: answers (the number of examples; by target the sums of SUMS)."""
        y, p = (values - self.mean for values in (targets, scores))
        error = p - y
        values = np.stack([error**2, np.abs(error), y, y**2, p, p**2, y * p], axis=2)
        return {"answers": Observed(np.zeros((len(scores), 1), np.int64), values, self.shapes()["answers"])}

    def shapes(self) -> dict[str, Shape]:
        """For K targets."""
        return {"answers": Shape((1,), (len(self.classes), len(SUMS)), 1)}

    def bounds(self, name: str, part: Part) -> tuple[Numbers, Numbers]:
        """Sums of squares and of absolute values are not negative, and all are 0 without examples."""
        signed = np.array([one in ("true", "predicted", "product") for one in SUMS])
        most = np.full(part.sums.shape, np.inf if part.counts.sum() else 0.0)
        return np.where(signed, -most, 0.0), most

    def skill(self, parts: Mapping[str, Part]) -> tuple[float, float] | None:
        """The mean R2 of the targets, at least 0, which is that of the mean as prediction."""
        if "answers" not in parts or np.isnan(values := determination(parts["answers"])).all():
            return None
        return float(np.nanmean(np.maximum(values, 0.0))), 0.0


def determination(part: Part) -> Numbers:
    """R2 by target [K]: 1 - sum e^2 / sum (y - mean y)^2; NaN when all values are equal."""
    count = part.counts.sum()
    error, true, squares = (part.sums[:, SUMS.index(name)] for name in ("squared_error", "true", "true_squared"))
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = squares - true**2 / count
        result: Numbers = np.where(spread > 1e-12 * np.maximum(squares, 1e-300), 1 - error / spread, np.nan)
    return result
