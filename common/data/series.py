"""Arrays over time: samples of a signal, frames of a video."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Series:
    """Values [T, ...] of which `rate` follow each other in a second. A file of an array does not say its rate; the
    shard may."""

    values: NDArray[Any]
    rate: float


def real_array(array: object) -> NDArray[Any]:
    """Whole numbers as they are, other numbers as float32.

    Raises ValueError for what is not an array of finite real numbers.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = f"of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"an array of real numbers is needed, not {kind}")
    with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, which is not taken
        values = array.astype(np.float32) if array.dtype.kind == "f" else array
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("the array is empty or not finite")
    return values


def over_time(raw: object, wanted: float | None) -> tuple[NDArray[Any], float | None]:
    """The values of an array or a `Series`, and their rate if it is `wanted` that one is known.

    Raises ValueError for another kind of value, and where the wanted rate cannot be had because the own is not known.
    """
    values = real_array(raw.values if isinstance(raw, Series) else raw)
    if wanted is None:
        return values, None
    if not isinstance(raw, Series):
        raise ValueError(f"its rate is not known, {wanted:g} per second are wanted: 'rates' of shard.json can say it")
    return values, raw.rate
