"""The streaming block-wise weighted mean."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from common.blocks import Params, by_block

PIECE = 1 << 16
"""Number of values that are added at a time."""


class BlockMean:
    """Weighted means of parameters. Clients are added one at a time, each with the blocks that it holds.

    theta_b = sum_k w_k,b theta_k,b / sum_k w_k,b over the clients k that were added with block b. Memory does not grow
    with the number of clients.

    The mean must have the same bits for every order of the replies. Each sum therefore consists of two float64 numbers;
    the second is the rounding error of the first (D. E. Knuth, "The Art of Computer Programming", volume 2, section
    4.2.2, theorem B). Different orders differ by 2^-100 of the sum, far below the last bit of the result.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._lost: dict[str, Tensor] = {}
        self._weights: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, params: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        """Add one client's parameters. params: complete blocks. weights: one weight per block of `params`."""
        for block, names in by_block(params).items():
            # Add a block as one vector, because most tensors are small.
            self._add(block, torch.cat([params[name].reshape(-1) for name in names]), weights[block])
            self._weights[block].append(weights[block])

    def _add(self, block: str, values: Tensor, weight: float) -> None:
        if block not in self._sums:
            self._sums[block] = torch.zeros(values.shape, dtype=torch.float64)
            self._lost[block] = torch.zeros(values.shape, dtype=torch.float64)
        for before, lost, piece in _pieces(self._sums[block], self._lost[block], values):
            term = piece.to(torch.float64) * weight
            after = before + term
            added = after - before
            lost += (before - (after - added)) + (term - added)
            before.copy_(after)

    def result(self, otherwise: Mapping[str, Tensor]) -> Params:
        """The means. A parameter that was never added, or only with weight 0, has its value in `otherwise`."""
        means: Params = dict(otherwise)
        for block, names in by_block(otherwise).items():
            total = math.fsum(self._weights[block])
            if block in self._sums and total:
                parts = torch.split(self._mean(block, total), [otherwise[name].numel() for name in names])
                for name, part in zip(names, parts, strict=True):
                    means[name] = part.reshape(otherwise[name].shape).to(otherwise[name].dtype, copy=True)
        return means

    def _mean(self, block: str, total: float) -> Tensor:
        mean = torch.empty_like(self._sums[block])
        for whole, lost, piece in _pieces(self._sums[block], self._lost[block], mean):
            piece.copy_((whole + lost) / total)
        return mean


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of the same pieces of contiguous tensors of one shape. Small pieces save memory and stay in the processor's
    cache."""
    if tensors[0].numel() <= PIECE:
        return iter([tensors])
    return zip(*(torch.split(tensor.reshape(-1), PIECE) for tensor in tensors), strict=True)
