"""A column whose values are mapped from a file."""

import math
import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor


class Mapped:
    """Values of a file. Only those of the current batch are in the memory of this process. The system keeps the others
    in its page cache as long as it has room.

    start: the place of the first value, in bytes. like: a tensor [0, ...] with the shape and the type of the values.
    """

    def __init__(self, path: Path, start: int, count: int, like: Tensor) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._map.madvise(mmap.MADV_RANDOM)  # else the system reads megabytes around each value
        self._start, self._item = start, math.prod(like.shape[1:]) * like.element_size()
        content = torch.frombuffer(self._map, dtype=torch.uint8)[start : start + count * self._item]
        self.values = content.view(like.dtype).reshape(count, *like.shape[1:])

    @property
    def blank(self) -> Tensor:
        """Zeros [...]."""
        return self.values.new_zeros(self.values.shape[1:])

    def take(self, index: Tensor) -> Tensor:
        """A copy of the values [B, ...]."""
        for place in index.tolist():  # the system reads them all at the same time
            start = self._start + place * self._item
            page = start - start % mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, page, start + self._item - page)
        taken = self.values.index_select(0, index)
        self._map.madvise(mmap.MADV_DONTNEED)  # the pages stay in the page cache
        return taken

    def stream(self, indexes: Sequence[Tensor]) -> Iterator[Tensor]:
        """A copy for each index."""
        return map(self.take, indexes)
