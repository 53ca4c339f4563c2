"""The columns of frozen encoders: features, which are computed once and kept in the shard's folder `cache`."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from common.data.finder import Finder
from common.data.prepared import cache, cached_file
from common.data.prepared.cached_file import Layout, unfinished
from common.data.prepared.column import Column
from common.data.prepared.preparing import as_bytes
from common.data.prepared.progress import progress
from common.data.shard import Shard
from common.encoders.base import FrozenEncoder
from common.media.values import Value
from common.modality import Modality
from common.rows import BLANK, Held

log = logging.getLogger(__name__)
CHUNK = 64
"""Number of values that are encoded together."""


def frozen_column(shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]) -> Column:
    """Features [n, 1 + T, D], float16. Rows without a readable value are left out; unreadable values are logged.

    Without room or without write access to the shard, the features are in memory, and every process computes them
    again.

    Raises ShardError when the folder `cache` is a link that leads out of the shard.
    """
    path = cache.place(shard, modality, encoder.described(), values)
    if (kept := cache.kept(path)) is not None:
        return kept
    features = _Features(shard, modality, encoder, values)
    try:
        return features.in_cache(path)
    except (cache.NoRoomError, OSError) as error:
        log.warning("%s: features are not kept, so they are computed again next time: %s", modality, error)
    return features.in_memory()


class _Features:
    """The features of a column."""

    def __init__(
        self, shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]
    ) -> None:
        self._shard, self._modality, self._encoder, self._values = shard, modality, encoder, values
        self._count = sum(value is not None for value in values)

    def in_cache(self, path: Path) -> Column:
        """Features in a mapped file. One chunk of them is in memory at a time.

        Raises NoRoomError and OSError.
        """
        blank, finder = self._encoder.blank(), Finder(self._modality)
        layout = Layout(len(self._values), self._count, tuple(blank.shape), blank.dtype)
        cache.make_room(path, layout.size)
        index, done = torch.full((len(self._values),), BLANK), 0
        with unfinished(path, layout) as file:
            log.info("%s: features of %d values are computed, %.3g GB are written to %s", self._modality, self._count,
                     layout.size / 1e9, path)  # fmt: skip
            for rows, features in self._chunks(finder):
                index[rows] = torch.arange(done, done + len(rows))
                file.slots.write({done + number: as_bytes(one) for number, one in enumerate(features)})
                done += len(rows)
            file.finish(index, finder.found())
        return cached_file.read(path)

    def in_memory(self) -> Column:
        """Features in memory."""
        finder, rows, parts = Finder(self._modality), list[int](), list[Tensor]()
        for some, features in self._chunks(finder):
            rows += some
            parts.append(features)
        index = torch.full((len(self._values),), BLANK)
        index[rows] = torch.arange(len(rows))
        features = torch.cat(parts) if parts else self._encoder.blank().unsqueeze(0)[:0]
        return Column(index, Held(features), finder.found())

    def _chunks(self, finder: Finder) -> Iterator[tuple[list[int], Tensor]]:
        """Rows of readable values, and their features."""
        for rows, inputs in self._inputs(finder):
            yield rows, self._encoder.extract(torch.stack(inputs)).half()

    def _inputs(self, finder: Finder) -> Iterator[tuple[list[int], list[Tensor]]]:
        """Rows and inputs of the readable values, in chunks."""
        rows: list[int] = []
        inputs: list[Tensor] = []
        with progress(self._modality, self._count) as add:
            for row, value in enumerate(self._values):
                if value is None:
                    continue
                if (tensor := finder.take(self._shard.records[row], value, self._encoder.tower.inputs)) is not None:
                    inputs.append(tensor)
                    rows.append(row)
                add(1)
                if len(rows) == CHUNK:
                    yield rows, inputs
                    rows, inputs = [], []
            if rows:
                yield rows, inputs
