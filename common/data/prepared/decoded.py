"""A column whose values are decoded whenever they are needed."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from common.data.prepared.preparing import Preparer, as_bytes, from_bytes
from common.data.prepared.workers import in_order


class Decoded:
    """The values that a preparer reads from the files of a shard."""

    def __init__(self, preparer: Preparer) -> None:
        self._preparer = preparer

    @property
    def blank(self) -> Tensor:
        """The replacement for a missing value."""
        return self._preparer.blank

    def take(self, index: Tensor) -> Tensor:
        """The values [B, ...].

        Raises ShardError when one of them can no longer be read.
        """
        return from_bytes(self._read(index.tolist()), self.blank)

    def stream(self, indexes: Sequence[Tensor]) -> Iterator[Tensor]:
        """The values for each index. Processes read ahead when there is enough work for them.

        Raises ShardError when a value can no longer be read, or when a process ends.
        """
        tasks = [index.tolist() for index in indexes]
        for content in in_order(self._read, tasks, self._preparer.made is not None):
            yield from_bytes(content, self.blank)

    def _read(self, places: list[int]) -> NDArray[np.uint8]:
        """The bytes of the values, one after the other."""
        contents = [as_bytes(self._preparer.read(place)) for place in places]
        return np.concatenate(contents) if contents else np.empty(0, np.uint8)
