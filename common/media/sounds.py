"""Reads recordings, mixes them to one channel, and resamples them."""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from common.media.silence import silenced

CANCELLED = 0.1
"""Channels cancel each other out if the power of their mean is below this share of their mean power."""
FINEST = 100_000
"""The largest numerator or denominator of a ratio of two rates. It keeps ratios practically exact (44,101 Hz to
8,000 Hz is 8000/44101) and limits the memory of the filter."""
TAPS = 10
"""Zero crossings of the filter on each side, as in scipy's own filter."""


@dataclass(frozen=True)
class Sound:
    """A recording: samples [T, channels] in -1..1 and its rate in Hz."""

    samples: NDArray[np.float32]
    rate: int

    def mono(self) -> NDArray[np.float32]:
        """The mean of the channels, [T]. If the channels cancel each other out, e.g. two channels in opposite phase,
        the loudest channel."""
        mixed: NDArray[np.float32] = self.samples.mean(axis=1)
        power = np.square(self.samples, dtype=np.float64).mean(axis=0)
        if np.square(mixed, dtype=np.float64).mean() < CANCELLED * power.mean():
            return self.samples[:, power.argmax()]
        return mixed


def read_sound(path: Path) -> Sound:
    """The recording in a file.

    Raises OSError when there is no such file, and ValueError when the recording cannot be decoded, is empty, is not
    finite or has no rate.
    """
    path.stat()
    try:
        with silenced():
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"cannot be decoded as a recording ({error.error_string})") from error
    if samples.size == 0 or not np.isfinite(samples).all():
        raise ValueError("the recording is empty or not finite")
    if rate < 1:
        raise ValueError(f"the recording has a rate of {rate} Hz")
    return Sound(samples, rate)


def resampled(values: NDArray[Any], rate: float, wanted: float, most: int | None = None) -> NDArray[np.float32]:
    """Values [T, ...] with `rate` per second, resampled to [T', ...] with `wanted` per second by a polyphase filter.

    most: the maximum number of values in the result; values after the end of the result are not processed.

    Raises ValueError when the rates are too far apart.
    """
    values = np.asarray(values, dtype=np.float32)
    ratio = (Fraction(wanted) / Fraction(rate)).limit_denominator(FINEST)
    if not ratio or ratio.numerator > FINEST:
        raise ValueError(f"a rate of {rate:g} Hz cannot be converted to {wanted:g} Hz")
    if most is not None:
        values = values[: int(most / ratio + 2 * TAPS * max(1.0, float(1 / ratio))) + 1]
    if ratio != 1:
        from scipy.signal import resample_poly

        up, down = ratio.numerator, ratio.denominator
        values = resample_poly(values, up, down, axis=0, window=_filter(max(up, down)))
    return values[:most].astype(np.float32, copy=False)


@lru_cache(maxsize=4)
def _filter(most: int) -> NDArray[np.float64]:
    """The low-pass filter of `resample_poly`, cached because `resample_poly` would design it again for every
    recording."""
    from scipy.signal import firwin

    taps: NDArray[np.float64] = firwin(2 * TAPS * most + 1, 1 / most, window=("kaiser", 5.0))
    return taps
