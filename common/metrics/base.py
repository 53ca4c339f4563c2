"""The interface of metrics. A metric computes a figure from one part of a tally.

A complete minimal example:

    class Errors(Metric):
        tasks: ClassVar[frozenset[str]] = frozenset({"single-label"})
        part: ClassVar[str] = "answers"
        higher_is_better: ClassVar[bool] = False

        def of(self, part):
            return part.counts[0] / part.counts.sum()

Parts and their content are described at `observe` of each task in `common/tasks/`.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from common.config.component import Component
from common.tasks.observed import Numbers, Part

SINGLE, MULTI, REGRESSION = "single-label", "multi-label", "regression"


class Metric(Component):
    """A figure. Its fields are its options in the config.

    tasks: the names of the tasks for which it is defined. part: the part of the tally that it reads.
    higher_is_better: whether a larger figure is a better one.
    """

    tasks: ClassVar[frozenset[str]]
    part: ClassVar[str]
    higher_is_better: ClassVar[bool] = True

    @abstractmethod
    def of(self, part: Part) -> Any:
        """The figure of a part with at least one example: a number, or one for each class [K]. NaN where it is not
        defined."""

    def mean(self, by_class: Numbers, part: Part) -> float:
        """The figure for all classes together: the mean over the classes where it is defined."""
        defined = by_class[~np.isnan(by_class)]
        return float(defined.mean()) if defined.size else float("nan")

    def error(self, part: Part) -> float:
        """The largest difference to the figure without bins of scores; 0 if no bins are used."""
        return 0.0


class ThresholdMetric(Metric):
    """A metric of the decisions at a threshold of the probability."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "scores"

    threshold: float = Field(0.5, gt=0, lt=1, multiple_of=0.01)
    """The threshold, a multiple of 0.01, because sites send histograms with bins of this width."""
