"""The strata of examples: what partitions and scenarios of missing modalities take for the class of an example."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from common.tasks.labels import Label

BINS = 10
"""The number of equally large strata of a regression."""


def strata(labels: Sequence[Label]) -> list[str]:
    """The stratum of each example: its class; for multi-label, the rarest of its labels, so that rare labels are
    divided as evenly or unevenly as frequent ones; for regression, the tenth of its first target."""
    numbers = [label[0] for label in labels if not isinstance(label, str) and label and isinstance(label[0], float)]
    if numbers:
        edges = np.quantile(numbers, np.arange(1, BINS) / BINS)
        return [f"tenth {place}" for place in np.searchsorted(edges, numbers, "right").tolist()]
    counts = Counter(name for label in labels if not isinstance(label, str) for name in label)
    return [label if isinstance(label, str) else _rarest(label, counts) for label in labels]


def _rarest(label: Sequence[str | float], counts: Counter[str | float]) -> str:
    return str(min(label, key=lambda name: (counts[name], name))) if label else "none"
