"""Prepares the values of a column one after the other, in this process or in several."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.finder import Finder
from common.data.observation import FAULTS, Observation, observe, reason
from common.data.prepared.cached_file import Slots
from common.data.prepared.made import Made
from common.data.prepared.progress import progress
from common.data.prepared.workers import in_order
from common.data.shard import Record
from common.encoders.base import Encoder
from common.errors import ShardError
from common.media.values import Raw, Value
from common.modality import Modality

CHUNK = 64
"""Number of values that one task prepares."""


def as_bytes(value: Tensor) -> NDArray[np.uint8]:
    """The bytes [n] of a tensor. Processes exchange arrays, because tensors would need shared memory, which is scarce
    in containers."""
    content: NDArray[np.uint8] = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    return content


def from_bytes(content: NDArray[np.uint8], blank: Tensor) -> Tensor:
    """Values [n, ...] with the shape and the type of `blank`, from their bytes."""
    if not len(content):  # torch cannot view it as another type
        return blank.new_empty(0, *blank.shape)
    return torch.from_numpy(content).view(blank.dtype).reshape(-1, *blank.shape)


class Preparer:
    """Prepares the values of one modality. A copy in another process contains no weights and makes its own encoder.

    made: None if the encoder cannot be made again, so that no other process can prepare the values.
    """

    def __init__(self, modality: Modality, encoder: Encoder, made: Made | None, values: Sequence[Value]) -> None:
        self.modality, self.made, self.values = modality, made, values
        self._encoder: Encoder | None = encoder

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_encoder": None}

    @property
    def encoder(self) -> Encoder:
        """The encoder, made when a process needs it for the first time."""
        if self._encoder is None:
            assert self.made is not None
            self._encoder = self.made.build()
        return self._encoder

    @property
    def blank(self) -> Tensor:
        """The replacement for a missing value."""
        return self.encoder.blank()

    def observe(self, place: int) -> tuple[Tensor | None, Observation]:
        """A prepared value, or None for an unreadable one, and its observation."""
        return observe(self.values[place], self._prepare, self.encoder.notes)

    def read(self, place: int) -> Tensor:
        """A prepared value that was readable before.

        Raises ShardError when it can no longer be read.
        """
        value = self.values[place]
        try:
            return self._prepare(value.read())
        except FAULTS as error:
            why = reason(error, value)
            raise ShardError(f"{self.modality}: a value that was readable before cannot be read now: {why}") from error

    def _prepare(self, raw: Raw) -> Tensor:
        prepared, blank = self.encoder.prepare(raw), self.blank
        if (prepared.shape, prepared.dtype) != (blank.shape, blank.dtype):
            raise TypeError(
                f"{type(self.encoder).__name__}: prepare returns {prepared.dtype} {list(prepared.shape)}, "
                f"blank returns {blank.dtype} {list(blank.shape)}"
            )
        return prepared


@dataclass(frozen=True)
class Chunk:
    """The result of one task. seen: one observation per value. kept: the prepared readable values, if they are
    needed."""

    seen: list[Observation]
    kept: list[NDArray[np.uint8]]


def prepared(
    preparer: Preparer, records: Sequence[Record], finder: Finder, keep: bool = False, slots: Slots | None = None
) -> Iterator[Chunk]:
    """Prepare all values in order, and note the observations. records: the example of each value.

    keep: whether the chunks contain the prepared values. slots: the file into which they are written.

    Raises ShardError when a process ends, OSError when the file cannot be written.
    """
    tasks = [range(start, min(start + CHUNK, len(records))) for start in range(0, len(records), CHUNK)]
    work = partial(_chunk, preparer, keep, slots)
    with progress(preparer.modality, len(records)) as add:
        for places, chunk in zip(tasks, in_order(work, tasks, preparer.made is not None), strict=True):
            for place, seen in zip(places, chunk.seen, strict=True):
                finder.note(records[place], seen)
            add(len(places))
            yield chunk


def _chunk(preparer: Preparer, keep: bool, slots: Slots | None, places: range) -> Chunk:
    found = [(place, *preparer.observe(place)) for place in places]
    contents = {place: as_bytes(value) for place, value, _ in found if value is not None and (keep or slots)}
    if slots:
        slots.write(contents)
    return Chunk([seen for _, _, seen in found], list(contents.values()) if keep else [])
