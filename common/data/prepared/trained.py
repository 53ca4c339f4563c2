"""The columns of encoders that are trained. Small columns are in memory. Large ones are in the shard's folder `cache`,
or their values are decoded whenever they are needed."""

import errno
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data.finder import Finder
from common.data.limits import bytes_allowed
from common.data.prepared import cache
from common.data.prepared.cached_file import Layout, unfinished
from common.data.prepared.column import Column
from common.data.prepared.decoded import Decoded
from common.data.prepared.made import Made
from common.data.prepared.preparing import Preparer, from_bytes, prepared
from common.data.shard import Shard
from common.encoders.base import Encoder
from common.errors import ShardError
from common.media.values import Value
from common.modality import Modality
from common.rows import BLANK, Held

log = logging.getLogger(__name__)
GIGABYTES_VARIABLE, GIGABYTES = "FEDMOSAIC_PREPARED_GB", 0.064
"""Prepared values of one modality up to this size are kept in memory. A single value must not be larger."""
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""Errors of a full disk."""
REMEDIES = (
    f"choose smaller sizes in the encoder, make room or set {cache.GIGABYTES_VARIABLE} higher, or set "
    f"{cache.GIGABYTES_VARIABLE}=0 to decode the values whenever they are needed"
)


def trained_column(
    shard: Shard, modality: Modality, encoder: Encoder, values: Sequence[Value | None], made: Made | None
) -> Column:
    """The prepared values, without missing and unreadable ones. Unreadable values are counted and logged.

    values: one per row of the shard; None for a missing value. made: how the encoder was made; without it, this process
    prepares the values alone and does not write them to the cache.

    Raises ShardError when a value is too large, or when the disk or the cache has no room.
    """
    rows = [row for row, value in enumerate(values) if value is not None]
    layout = _layout(encoder, len(values), len(rows))
    _check_one(modality, layout)
    column = _Trained(shard, rows, Preparer(modality, encoder, made, [v for v in values if v is not None]))
    if layout.count * layout.item <= bytes_allowed(GIGABYTES_VARIABLE, GIGABYTES):
        return column.in_memory()
    if made is None or not cache.is_on():
        return column.decoded()
    path = cache.place(shard, modality, made.described(), values)
    return cache.kept(path) or column.in_cache(path, layout)


def _layout(encoder: Encoder, rows: int, count: int) -> Layout:
    with torch.device("meta"):  # gives the shape without allocating memory
        blank = encoder.blank()
    return Layout(rows, count, tuple(blank.shape), blank.dtype)


def _check_one(modality: Modality, layout: Layout) -> None:
    """Raises ShardError when one value would take more memory than the site allows.

    The check is necessary because each size of an experiment has a limit, but the product of the sizes has none.
    """
    most = bytes_allowed(GIGABYTES_VARIABLE, GIGABYTES)
    if layout.item > most:
        raise ShardError(
            f"{modality}: one prepared value would take {layout.item / 1e9:.3g} GB of memory, {GIGABYTES_VARIABLE} "
            f"allows {most / 1e9:g} GB: choose smaller sizes in the encoder, or set {GIGABYTES_VARIABLE} higher"
        )


class _Trained:
    """A column that is prepared. rows: the row of the shard for each value of the preparer."""

    def __init__(self, shard: Shard, rows: list[int], preparer: Preparer) -> None:
        self._records = [shard.records[row] for row in rows]
        self._rows, self._height, self._preparer = torch.tensor(rows, dtype=torch.int64), len(shard.records), preparer
        self._finder = Finder(preparer.modality)

    def in_memory(self) -> Column:
        """The readable values, one after the other."""
        contents = [
            content
            for chunk in prepared(self._preparer, self._records, self._finder, keep=True)
            for content in chunk.kept
        ]
        index = self._index()
        there = index != BLANK
        index[there] = torch.arange(int(there.sum()))
        whole = np.concatenate(contents) if contents else np.empty(0, np.uint8)
        return Column(index, Held(from_bytes(whole, self._preparer.blank)), self._finder.found())

    def decoded(self) -> Column:
        """All values are read once, because their findings are a part of the introduction."""
        for _ in prepared(self._preparer, self._records, self._finder):
            pass
        return Column(self._index(), Decoded(self._preparer), self._finder.found())

    def in_cache(self, path: Path, layout: Layout) -> Column:
        """The values are written to a file. If the folder cannot be written, they are decoded when they are needed.

        Raises ShardError when there is no room.
        """
        modality = self._preparer.modality
        try:
            cache.make_room(path, layout.size)
            with unfinished(path, layout) as file:
                log.info("%s: %d values are prepared, %.3g GB are written to %s", modality, layout.count,
                         layout.size / 1e9, path)  # fmt: skip
                for _ in prepared(self._preparer, self._records, self._finder, slots=file.slots):
                    pass
                file.finish(self._index(), self._finder.found())
        except cache.NoRoomError as error:
            raise ShardError(f"{modality}: the prepared values cannot be kept: {error}. Choices: {REMEDIES}") from None
        except OSError as error:
            if error.errno in FULL:
                raise ShardError(f"{modality}: the prepared values cannot be kept: {error.strerror}; "
                                 f"{layout.size / 1e9:.3g} GB are needed. Choices: {REMEDIES}") from None  # fmt: skip
            log.warning("%s: prepared values cannot be kept, so they are decoded when they are needed: %s",
                        modality, error)  # fmt: skip
            self._finder = Finder(modality)
            return self.decoded()
        return cache.kept(path) or self.decoded()

    def _index(self) -> Tensor:
        """For each row of the shard, the number of its value; BLANK without a readable value."""
        broken = torch.tensor([record.id in self._finder.broken for record in self._records], dtype=torch.bool)
        index = torch.full((self._height,), BLANK)
        index[self._rows] = torch.where(broken, BLANK, torch.arange(len(self._records)))
        return index
