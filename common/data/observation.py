"""The observation of one value: whether it can be prepared, and the properties that findings count."""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from common.findings import LONGEST
from common.media.pictures import BRIGHTEST
from common.media.series import Series
from common.media.sounds import Sound
from common.media.table_row import TableRow
from common.media.values import TEXTS, Raw, Value

T = TypeVar("T")
FAULTS = (ValueError, RuntimeError, ArithmeticError, MemoryError)
"""Exceptions from preparing a value that do not end a run. The value counts as unreadable."""
SILENT = 1e-4
"""The largest range of the samples of a silent recording: three steps of 16 bits."""


@dataclass(frozen=True, slots=True)
class Observation:
    """An observation of one value, small enough to be sent between processes.

    reason: why the value is unreadable, without the name of its file; "" if it is readable. said: the same with the
    name. low, high: its smallest and largest number, see `extent`. constant: whether it is silent, blank or one number.
    form: the kind of value. digest: see `digest_of`; None for generated values. notes: findings of the encoder.
    """

    reason: str = ""
    said: str = ""
    low: float = math.inf
    high: float = -math.inf
    constant: bool = False
    form: str = ""
    digest: bytes | None = None
    notes: Sequence[str] = ()


def no_notes(raw: Raw) -> Sequence[str]:
    """No findings of an encoder."""
    return ()


def observe(
    value: Value, prepare: Callable[[Raw], T], note: Callable[[Raw], Sequence[str]] = no_notes
) -> tuple[T | None, Observation]:
    """The result of `prepare` for a value, or None for an unreadable one, and the observation. note: the encoder's
    findings about a readable value."""
    try:
        raw = value.read()
        prepared = prepare(raw)
    except FAULTS as error:
        return None, Observation(reason(error, value) or type(error).__name__, str(error))
    low, high = extent(raw)
    constant = high - low <= (SILENT if isinstance(raw, Sound) else 0)
    digest = None if value.generated else digest_of(value.source)
    return prepared, Observation("", "", low, high, constant, measured(raw)[0], digest, note(raw))


def reason(error: Exception, value: Value) -> str:
    """Why a value is unreadable, without the name of its file, because equal reasons are counted together and the
    reason is sent to the server."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return (kind + _nameless(str(error), value.source))[:LONGEST]


def _nameless(said: str, source: str | TableRow | Path) -> str:
    if not isinstance(source, Path):
        return said
    said = said.removeprefix(f"{source.name}: ").replace(f" file {source.name!r}", " file")
    for name in (str(source), source.name, source.stem):
        said = said.replace(repr(name), "the file").replace(name, "the file") if len(name) > 1 else said
    return said


def extent(raw: Raw) -> tuple[float, float]:
    """The smallest and the largest number of a value.

    For a recording or a picture with several channels, these are the numbers of the channel in which they differ most.
    Equal numbers mean silence or a picture in one colour. For a text or a row of a table: -inf, inf.
    """
    if isinstance(raw, str | TableRow):
        return -math.inf, math.inf
    if isinstance(raw, Image.Image):
        bands = np.array(raw.getextrema(), dtype=float).reshape(-1, 2)
    elif isinstance(raw, Sound):
        bands = np.stack([raw.samples.min(axis=0), raw.samples.max(axis=0)], axis=1).astype(float)
    else:
        values = raw.values if isinstance(raw, Series) else raw
        return float(values.min()), float(values.max())
    low, high = bands[np.diff(bands, axis=1)[:, 0].argmax()]
    return float(low), float(high)


def digest_of(source: str | TableRow | Path) -> bytes | None:
    """A hash of a file's bytes. None for a text or a row, because different examples may have the same ones."""
    if not isinstance(source, Path) or source.suffix.lower() in TEXTS:
        return None
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def measured(raw: Raw) -> tuple[str, float, str]:
    """The kind of a value, its length, and the unit of the length."""
    if isinstance(raw, Sound):
        return f"sound, {raw.rate} Hz, {_channels(raw.samples.shape[1])}", len(raw.samples) / raw.rate, "seconds"
    if isinstance(raw, Image.Image):
        bits = ", 16 bits" if BRIGHTEST in raw.info else ""
        return f"picture, {raw.width} × {raw.height}, {raw.mode}{bits}", max(raw.size), "pixels"
    if isinstance(raw, str):
        return "text", len(raw.split()), "words"
    if isinstance(raw, TableRow):
        return "row of a table", len(raw.cells), "known cells"
    if isinstance(raw, Series):
        form, length, unit = measured(raw.values)
        return f"{form}, {raw.rate:g} per second", length, unit
    if is_frames(raw):
        return f"frames, {raw.shape[2]} × {raw.shape[1]}", len(raw), "frames"
    if raw.ndim in (1, 2):
        return f"signal, {_channels(raw[0].size)}", len(raw), "samples"
    return f"array, {' × '.join(map(str, raw.shape))}", raw.size, "numbers"


def is_frames(array: np.ndarray[Any, Any]) -> bool:
    """Whether an array is [T, H, W, 3], the frames of a video."""
    return array.ndim == 4 and array.shape[3] == 3


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"
