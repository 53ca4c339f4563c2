"""Reads arrays over time: samples of a signal, frames of a video."""

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
    """Values [T, ...] with `rate` values per second. An array file does not contain its rate, but shard.json may."""

    values: NDArray[Any]
    rate: float


def read_array(path: Path) -> NDArray[Any]:
    """The array in a .npy file.

    Raises ValueError for another kind of file, and for a file that is shorter than its header requires. This check runs
    before memory is allocated.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version not in HEADERS:
            raise ValueError(f"a .npy file of version {version}, which is not supported")
        try:
            shape, _, dtype = HEADERS[version](file)
        except (SyntaxError, TokenError, TypeError, KeyError, RecursionError) as error:  # the header is Python code
            raise ValueError(f"its header cannot be read: {error}") from None
        size, there = math.prod(shape) * dtype.itemsize, path.stat().st_size - file.tell()
        if size > there:
            raise ValueError(f"its header requires {size} bytes of values, the file has {there}")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


REMEDIES = {
    "Image": " (the encoders image and timm read pictures)",
    "Sound": " (the encoder spectrogram reads recordings)",
    "TableRow": " (the encoder table reads rows of a table)",
}
"""By class, the encoders for a value that is not an array."""


def real_array(array: object) -> NDArray[Any]:
    """The array, with floating-point numbers converted to float32.

    Raises ValueError unless it is an array of finite real numbers.
    """
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        kind = f"of {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"an array of real numbers is needed, not {kind}{REMEDIES.get(kind, '')}")
    with np.errstate(over="ignore"):  # numbers too large for float32 become infinite and are refused below
        values = array.astype(np.float32) if array.dtype.kind == "f" else array
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError("the array is empty or not finite")
    return values


def over_time(raw: object, wanted: float | None) -> tuple[NDArray[Any], float | None]:
    """The values of an array or a `Series`, and their rate; None instead of the rate if no rate is `wanted`.

    Raises ValueError for another kind of value, and when a rate is wanted but the values' own rate is not known.
    """
    values = real_array(raw.values if isinstance(raw, Series) else raw)
    if wanted is None:
        return values, None
    if not isinstance(raw, Series):
        raise ValueError(f"its rate is not known, {wanted:g} per second are needed: add it to 'rates' of shard.json")
    return values, raw.rate
