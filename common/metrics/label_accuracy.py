"""Label accuracy: the share of right decisions about labels."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, Metric
from common.tasks.observed import Part


class LabelAccuracy(Metric):
    """The share of right decisions about each label, and its mean over the labels, which is 1 - Hamming loss."""

    tasks: ClassVar[frozenset[str]] = frozenset({MULTI})
    part: ClassVar[str] = "confusion"

    def of(self, part: Part) -> Any:
        """(true negatives + true positives) / all, by label."""
        return (part.counts[:, 0, 0] + part.counts[:, 1, 1]) / part.counts.sum((1, 2))
