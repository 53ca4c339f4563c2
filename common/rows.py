"""Rows of larger tensors, whose values are copied only when they are read.

A shard's features may be larger than memory, so they are mapped from a file. Choosing rows of them (training part,
validation part, examples with every modality) chooses only row numbers. The values are copied per batch.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

BLANK = -1
"""The row number for an absent row, whose values are zeros."""


class Rows(Mapping[str, Tensor]):
    """By key, a tensor [B, ...] with the rows of whole[key] [N, ...] that have the numbers index[key] [B]."""

    def __init__(self, whole: Mapping[str, Tensor], index: Mapping[str, Tensor]) -> None:
        self._whole, self._index = whole, index

    def __getitem__(self, key: str) -> Tensor:
        whole, index = self._whole[key], self._index[key]
        there = index != BLANK
        if there.all():
            return whole[index]
        values = whole.new_zeros(len(index), *whole.shape[1:])
        return values.index_put_((there.nonzero()[:, 0],), whole[index[there]])

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
