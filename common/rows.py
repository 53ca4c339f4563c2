"""Rows of larger tensors, gathered when they are looked at.

A shard's features may be larger than memory: they lie in a file that is mapped, and choosing rows of them (training
part, validation part, those with every modality) chooses numbers of rows, not values. A batch gathers its own.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

BLANK = -1
"""The number of a row that is not there: zeros."""


class Rows(Mapping[str, Tensor]):
    """By key, a tensor [B, ...] that consists of rows of whole[key] [N, ...], numbered by index[key] [B]."""

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
        """B by key."""
        return {key: len(index) for key, index in self._index.items()}

    def rows(self, chosen: Tensor) -> "Rows":
        """The rows chosen by an index or a [B] bool mask."""
        return Rows(self._whole, {key: index[chosen] for key, index in self._index.items()})

    def where(self, kept: Mapping[str, Tensor]) -> "Rows":
        """The same rows with zeros where kept[key], [B] bool, is false."""
        return Rows(self._whole, {key: torch.where(kept[key], index, BLANK) for key, index in self._index.items()})
