"""Rows of larger columns, whose values are copied only when they are read.

A shard's values may be larger than memory, so they are mapped from a file or decoded when they are needed. Choosing
rows of them (training part, validation part, examples with every modality) chooses only row numbers. The values are
copied per batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLANK = -1
"""The row number for an absent row, whose values are zeros."""


class Source(Protocol):
    """The place of a column's N values: the memory, a mapped file, or the files of a shard."""

    @property
    def blank(self) -> Tensor:
        """The replacement [...] for an absent value: zeros."""

    def take(self, index: Tensor) -> Tensor:
        """The values [B, ...] that have the numbers index [B] int64."""

    def stream(self, indexes: Sequence[Tensor]) -> Iterator[Tensor]:
        """The same for each index, in order. The source may read ahead."""


@dataclass(frozen=True)
class Held:
    """values: a tensor [N, ...], in memory or mapped from a file."""

    values: Tensor

    @property
    def blank(self) -> Tensor:
        """Zeros [...]."""
        return self.values.new_zeros(self.values.shape[1:])

    def take(self, index: Tensor) -> Tensor:
        """A copy of the values [B, ...]."""
        return self.values.index_select(0, index)  # copies rows as a whole, faster than indexing

    def stream(self, indexes: Sequence[Tensor]) -> Iterator[Tensor]:
        """A copy for each index."""
        return map(self.take, indexes)


class Rows(Mapping[str, Tensor]):
    """By key, a tensor [B, ...] with the rows of the source whole[key] that have the numbers index[key] [B]."""

    def __init__(self, whole: Mapping[str, Source], index: Mapping[str, Tensor]) -> None:
        self._whole, self._index = whole, index

    def __getitem__(self, key: str) -> Tensor:
        index = self._index[key]
        return _spread(self._whole[key].take(index[index != BLANK]), index, self._whole[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def counts(self) -> dict[str, int]:
        """The number of rows B by key."""
        return {key: len(index) for key, index in self._index.items()}

    def rows(self, chosen: Tensor) -> "Rows":
        """The rows that an index or a mask [B] bool selects."""
        return Rows(self._whole, {key: index[chosen] for key, index in self._index.items()})

    def where(self, kept: Mapping[str, Tensor]) -> "Rows":
        """The same rows, with zeros where the mask kept[key] [B] bool is false."""
        return Rows(self._whole, {key: torch.where(kept[key], index, BLANK) for key, index in self._index.items()})

    def stream(self, parts: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        """The tensors of the rows that each index of `parts` selects, in order. The sources may read ahead."""
        columns = {key: self._column(key, parts) for key in self}
        for _ in parts:
            yield {key: next(column) for key, column in columns.items()}

    def _column(self, key: str, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        source, indexes = self._whole[key], [self._index[key][part] for part in parts]
        read = source.stream([index[index != BLANK] for index in indexes])
        for index, values in zip(indexes, read, strict=True):
            yield _spread(values, index, source)


def _spread(values: Tensor, index: Tensor, source: Source) -> Tensor:
    """The values [P, ...] of the P rows that are not absent, at their places among the B rows of an index."""
    if len(values) == len(index):
        return values
    blank = source.blank
    spread = blank.new_zeros(len(index), *blank.shape)
    return spread.index_put_(((index != BLANK).nonzero()[:, 0],), values)
