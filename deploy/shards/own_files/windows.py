"""Ranges of values that become grey pictures of 8 bits."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.modality import Modality

HOUNSFIELD = {"lung": (-1350, 150), "bone": (-500, 1300), "brain": (0, 80), "soft-tissue": (-150, 250)}
"""Windows of computed tomography that radiologists use, in Hounsfield units."""


@dataclass(frozen=True)
class Window:
    """The values `low` and `high` that become black (0) and white (255). If they are equal, larger values are white."""

    low: float
    high: float

    def grey(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Values of any shape as pixels: linear from `low` to `high`, and constant outside.

        Raises ValueError when the range is wider than any floating-point number.
        """
        if self.low == self.high:
            return ((values > self.low) * 255).astype(np.uint8)
        if not math.isfinite(self.high - self.low):
            raise ValueError(f"its values reach from {self.low:g} to {self.high:g}: name their range with --window")
        with np.errstate(over="ignore"):  # far outside the range, the distance may be infinite
            share = (np.asarray(values, dtype=np.float64) - self.low) / (self.high - self.low)
        return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def windows_of(pairs: Mapping[Modality, str], known: Collection[Modality], mistakes: list[str]) -> dict[str, Window]:
    """The windows of --window by modality. known: the modalities with files."""
    windows = {}
    for modality, said in pairs.items():
        low, _, high = said.partition(":")
        try:
            window = Window(*HOUNSFIELD[said]) if said in HOUNSFIELD else Window(float(low), float(high))
        except ValueError:
            window = Window(math.nan, math.nan)
        if not -math.inf < window.low < window.high < math.inf:
            mistakes.append(f"--window: {said!r} is neither LOW:HIGH nor one of {', '.join(HOUNSFIELD)}")
        if modality not in known:
            mistakes.append(f"--window: {modality} has no folder and no column of files")
        windows[modality] = window
    return windows
