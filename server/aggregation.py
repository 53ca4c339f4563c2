"""The streaming block-wise weighted mean."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from common.blocks import Params, block_of

PIECE = 1 << 16
"""Values that are added at a time."""


class BlockMean:
    """Weighted means of parameters that come one client at a time, each with the blocks it holds.

    theta_b = sum_k w_k,b theta_k,b / sum_k w_k,b over the clients k that were added with block b. Memory does not grow
    with the number of clients. Replies come in any order and the mean must be the same bits, so each sum is kept as two
    float64 numbers, the second of what rounding took from the first (D. E. Knuth, "The Art of Computer Programming",
    volume 2, section 4.2.2, theorem B): orders differ by 2^-100 of the sum, far below the last bit of the result.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._lost: dict[str, Tensor] = {}
        self._weights: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, params: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        """Add one client's parameters; `weights` are by block, one for each block that is in `params`."""
        for name, value in params.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros(value.shape, dtype=torch.float64)
                self._lost[name] = torch.zeros(value.shape, dtype=torch.float64)
            self._add(name, value, weights[block_of(name)])
        for block in {block_of(name) for name in params}:
            self._weights[block].append(weights[block])

    def _add(self, name: str, value: Tensor, weight: float) -> None:
        for before, lost, piece in _pieces(self._sums[name], self._lost[name], value):
            term = piece.to(torch.float64) * weight
            after = before + term
            added = after - before
            lost += (before - (after - added)) + (term - added)
            before.copy_(after)

    def result(self, otherwise: Mapping[str, Tensor]) -> Params:
        """The means; a parameter that nobody added, or only with weight 0, keeps its value in `otherwise`."""
        totals = {block: math.fsum(weights) for block, weights in self._weights.items()}
        means: Params = {}
        for name, value in otherwise.items():
            total = totals.get(block_of(name), 0.0)
            means[name] = self._mean(name, value.dtype, total) if name in self._sums and total else value
        return means

    def _mean(self, name: str, dtype: torch.dtype, total: float) -> Tensor:
        mean = torch.empty(self._sums[name].shape, dtype=dtype)
        for whole, lost, piece in _pieces(self._sums[name], self._lost[name], mean):
            piece.copy_((whole + lost) / total)
        return mean


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same stretches of contiguous tensors of one shape, views, so that what is computed of them takes little
    memory and stays in the processor's cache."""
    if tensors[0].numel() <= PIECE:
        return iter([tensors])
    return zip(*(torch.split(tensor.reshape(-1), PIECE) for tensor in tensors), strict=True)
