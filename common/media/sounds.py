"""Recordings: their samples, their mix to one channel, and another rate."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

CANCELLED = 0.1
"""Share of the channels' mean power below which their mean counts as cancelled out."""
FINEST = 100_000
"""Largest number of a ratio of two rates. It is as good as exact (44,101 Hz to 8,000 Hz is 8000/44101), and bounds the
memory of the filter."""
TAPS = 10
"""Zero crossings of the filter on each side, as scipy's own."""


@dataclass(frozen=True)
class Sound:
    """A recording: samples [T, channels] in -1..1 and its rate in Hz."""

    samples: NDArray[np.float32]
    rate: int

    def mono(self) -> NDArray[np.float32]:
        """[T]: the mean of the channels; where they cancel each other out, as two in opposite phase do, the loudest."""
        mixed: NDArray[np.float32] = self.samples.mean(axis=1)
        power = np.square(self.samples, dtype=np.float64).mean(axis=0)
        if np.square(mixed, dtype=np.float64).mean() < CANCELLED * power.mean():
            return self.samples[:, power.argmax()]
        return mixed


def read_sound(path: Path) -> Sound:
    """The recording of a file.

    Raises OSError when there is no such file, and ValueError for one that cannot be decoded, is empty, not finite or
    without a rate.
    """
    path.stat()
    try:
        with _silenced():
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be decoded as a recording ({error.error_string})") from error
    if samples.size == 0 or not np.isfinite(samples).all():
        raise ValueError("the recording is empty or not finite")
    if rate < 1:
        raise ValueError(f"the recording has a rate of {rate} Hz")
    return Sound(samples, rate)


def resampled(values: NDArray[Any], rate: float, wanted: float, most: int | None = None) -> NDArray[np.float32]:
    """Values [T, ...] at `rate` per second as [T', ...] at `wanted` per second, by a polyphase filter.

    most: how many are needed at most; what lies behind them is not looked at.

    Raises ValueError when the rates are too far apart.
    """
    values = np.asarray(values, dtype=np.float32)
    ratio = (Fraction(wanted) / Fraction(rate)).limit_denominator(FINEST)
    if not ratio or ratio.numerator > FINEST:
        raise ValueError(f"a rate of {rate:g} Hz cannot be turned into {wanted:g} Hz")
    if most is not None:
        values = values[: int(most / ratio + 2 * TAPS * max(1.0, float(1 / ratio))) + 1]
    if ratio != 1:
        from scipy.signal import resample_poly

        up, down = ratio.numerator, ratio.denominator
        values = resample_poly(values, up, down, axis=0, window=_filter(max(up, down)))
    return values[:most].astype(np.float32, copy=False)


@lru_cache(maxsize=4)
def _filter(most: int) -> NDArray[np.float64]:
    """The low-pass filter that `resample_poly` would design for every recording anew."""
    from scipy.signal import firwin

    taps: NDArray[np.float64] = firwin(2 * TAPS * most + 1, 1 / most, window=("kaiser", 5.0))
    return taps


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Decoders of MP3 write about damaged files to the process's standard error, past Python; the error is enough."""
    try:
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no standard error, nothing to keep quiet
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
