"""Accuracy: the share of examples with the right prediction."""

from typing import Any, ClassVar

from common.metrics.base import MULTI, SINGLE, Metric
from common.tasks.observed import Part


class Accuracy(Metric):
    """The share of examples with the right class. Multi-label: the share with all labels right (subset accuracy)."""

    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE, MULTI})
    part: ClassVar[str] = "answers"

    def of(self, part: Part) -> Any:
        """right / all."""
        return part.counts[1] / part.counts.sum()
