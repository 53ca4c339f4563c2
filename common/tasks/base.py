"""The interface of tasks: what logits mean, and what is counted about predictions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from torch import Tensor

from common.config.task import TaskName
from common.tasks.labels import Label
from common.tasks.observed import Numbers, Observed, Part, Shape
from common.words.figures import MAIN

CALIBRATION_BINS = 15
"""Number of equal bins of confidences (C. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017,
https://arxiv.org/abs/1706.04599)."""
TOLERANCE = 1e-6


class Task(ABC):
    """The meaning of the model's K outputs.

    classes: the classes, the labels, or the targets, in the order of the outputs. name: the name in experiments and
    shards.
    """

    name: ClassVar[TaskName]

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)

    @property
    def main(self) -> str:
        """The metric that stands for a model where only one figure fits."""
        return MAIN[self.name]

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """The scores [B, K] float64 of logits [B, K]: probabilities, or the predicted values."""

    @abstractmethod
    def decide(self, scores: Numbers) -> Label:
        """The prediction for the scores [K] of one example."""

    def probabilities(self, scores: Numbers) -> dict[str, float]:
        """The probabilities by class in the scores [K] of one example; empty if the scores are none."""
        return dict(zip(self.classes, scores.tolist(), strict=True))

    @abstractmethod
    def observe(self, scores: Numbers, targets: Numbers, exact: bool = False) -> dict[str, Observed]:
        """The predictions of N examples as cells. scores: [N, K]; targets: [N] or [N, K].

        exact: histograms of scores with a bin for each different score. Such tallies cannot be added.
        """

    @abstractmethod
    def shapes(self) -> dict[str, Shape]:
        """By part of a tally, its shape."""

    @abstractmethod
    def bounds(self, name: str, part: Part) -> tuple[Numbers, Numbers]:
        """The smallest and the largest sums that a part with these counts can have."""

    @abstractmethod
    def skill(self, parts: Mapping[str, Part]) -> tuple[float, float] | None:
        """How good the predictions of a tally are, and how good guessing is, on a scale where 1 is perfect; None if the
        tally lacks the part."""

    def check(self, parts: Mapping[str, Part]) -> None:
        """Raises ValueError when sums are impossible for the counts of their part."""
        for name, part in parts.items():
            least, most = self.bounds(name, part)
            slack = TOLERANCE * (1 + np.abs(np.where(np.isfinite(most), most, 0)))
            if (part.sums < least - slack).any() or (part.sums > most + slack).any():
                raise ValueError(f"the sums of {name} are impossible for its counts")
