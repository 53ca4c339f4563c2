"""Decisions about each class against the rest, from the confusion counts of either task."""

from dataclasses import dataclass

import numpy as np

from common.tasks.observed import Numbers, Part


@dataclass(frozen=True)
class Decisions:
    """By class [K]: true positives, false negatives, false positives, true negatives."""

    hits: Numbers
    missed: Numbers
    false: Numbers
    rest: Numbers

    @classmethod
    def of(cls, part: Part) -> "Decisions":
        """The decisions in confusion counts [K, K] (single-label: by true and predicted class) or [K, 2, 2]
        (multi-label: by label, truth and decision)."""
        counts = part.counts.astype(np.float64)
        if counts.ndim == 3:
            return cls(counts[:, 1, 1], counts[:, 1, 0], counts[:, 0, 1], counts[:, 0, 0])
        hits = counts.diagonal()
        missed, false = counts.sum(1) - hits, counts.sum(0) - hits
        return cls(hits, missed, false, counts.sum() - hits - missed - false)

    @property
    def examples(self) -> Numbers:
        """The examples of each class."""
        return self.hits + self.missed


def ratio(part: Numbers, whole: Numbers) -> Numbers:
    """part / whole; NaN where whole is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Numbers = np.where(whole > 0, part / whole, np.nan)
    return found


def f1(decisions: Decisions) -> Numbers:
    """2 TP / (2 TP + FP + FN) by class; NaN for a class that neither occurs nor is predicted."""
    return ratio(2 * decisions.hits, 2 * decisions.hits + decisions.false + decisions.missed)
