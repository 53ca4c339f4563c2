"""The distribution of numbers: quantiles and a histogram."""

from collections.abc import Sequence

import numpy as np

BINS = 12
"""The number of bins of a histogram."""
BLOCKS = " ▁▂▃▄▅▆▇█"
"""Signs of a histogram in the terminal, from an empty bin to the fullest one."""


def quantiles(numbers: Sequence[float]) -> list[float]:
    """Smallest number, quartiles and largest number; empty without numbers."""
    return [float(one) for one in np.percentile(numbers, [0, 25, 50, 75, 100])] if len(numbers) else []


def quantiles_in_words(numbers: Sequence[float]) -> str:
    """The quantiles, e.g. "1 to 9, quartiles 3, 5, 7"; "" without numbers."""
    if not len(numbers):
        return ""
    low, *quartiles, high = (f"{one:.4g}" for one in quantiles(numbers))
    return f"{low} to {high}, quartiles {', '.join(quartiles)}"


def histogram(numbers: Sequence[float]) -> list[int]:
    """The counts of bins of equal width from the smallest number to the largest one; empty without numbers."""
    return [int(one) for one in np.histogram(numbers, BINS)[0]] if len(numbers) else []


def bars(counts: Sequence[int]) -> str:
    """A histogram as one line of signs."""
    most = max(counts, default=0)
    return "".join(BLOCKS[-(-count * (len(BLOCKS) - 1) // most)] for count in counts)
