"""Bootstrap intervals of figures on a test set.

B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from collections.abc import Iterator, Sequence

import numpy as np

from common.evaluation.evaluate import Scored
from common.evaluation.figures import Named
from common.seeding import rng
from common.tasks.base import Task
from common.tasks.observed import tally

RESAMPLES, FEWER_RESAMPLES, MANY_SCORES = 1000, 200, 200_000
"""The number of resamples, and the smaller one for more scores (examples times classes), so that it takes seconds."""
LEVEL = 0.95
FEWEST_EXAMPLES = 2


def intervals(scored: Scored, task: Task, metrics: Sequence[Named], seed: int) -> dict[str, list[float]]:
    """By metric, the bounds of the 95 % interval over test examples that are drawn with replacement. Metrics that
    are undefined for most draws have none.

    An interval describes the chance in the choice of the test examples, not that of the training.
    """
    if len(scored.targets) < FEWEST_EXAMPLES:
        return {}
    observed = task.observe(scored.scores, scored.targets, exact=True)
    found: dict[str, list[float]] = {one.key: [] for one in metrics}
    count = RESAMPLES if scored.scores.size <= MANY_SCORES else FEWER_RESAMPLES
    for weights in _draws(len(scored.targets), count, seed):
        drawn = tally(observed, weights)
        for one in metrics:
            if (value := one.of(drawn)) is not None:
                found[one.key].append(value)
    tail = (1 - LEVEL) / 2
    return {
        key: [float(bound) for bound in np.quantile(values, [tail, 1 - tail])]
        for key, values in found.items()
        if 2 * len(values) > count
    }


def _draws(examples: int, count: int, seed: int) -> Iterator["np.ndarray[tuple[int], np.dtype[np.int64]]"]:
    """How often each example is drawn [N], once for each resample."""
    chance = rng(seed, "bootstrap")
    for _ in range(count):
        yield np.bincount(chance.integers(examples, size=examples), minlength=examples)
