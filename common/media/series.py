"""Arrays over time: samples of a signal, frames of a video."""

import math
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class Series:
    """Values [T, ...] of which `rate` follow each other in a second. A file of an array does not say its rate; the
    shard may."""

    values: NDArray[Any]
    rate: float


def read_array(path: Path) -> NDArray[Any]:
    """The array of a .npy file.

    Raises ValueError for another kind of file and for one that is shorter than its header says: memory is only taken
    for what is there.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"a .npy file of version {version}")
        try:
            shape, _, dtype = HEADERS[version](file)
        except (SyntaxError, TokenError, TypeError, KeyError, RecursionError) as error:  # the header is Python's text
            raise ValueError(f"its header cannot be read: {error}") from None
        size, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        if size > there:
            raise ValueError(f"its header promises {size} bytes, and {there} are there")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


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
