"""The streaming block-wise weighted mean."""

from collections import defaultdict
from collections.abc import Mapping

import torch
from torch import Tensor

from common.blocks import Params, block_of


class BlockMean:
    """Weighted means of parameters that come one client at a time, each with the blocks it holds.

    theta_b = sum_k w_k,b theta_k,b / sum_k w_k,b over the clients k that were added with block b. Sums are kept in
    float64, so memory does not grow with the number of clients.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weights: defaultdict[str, float] = defaultdict(float)

    def add(self, params: Mapping[str, Tensor], weights: Mapping[str, float]) -> None:
        """Add one client's parameters; `weights` are by block, one for each block that is in `params`."""
        for name, value in params.items():
            weight = weights[block_of(name)]
            term = value.to(torch.float64) * weight
            self._sums[name] = self._sums[name].add_(term) if name in self._sums else term
        for block in {block_of(name) for name in params}:
            self._weights[block] += weights[block]

    def result(self, otherwise: Mapping[str, Tensor]) -> Params:
        """The means; a parameter that nobody added, or only with weight 0, keeps its value in `otherwise`."""
        means: Params = {}
        for name, value in otherwise.items():
            total = self._weights.get(block_of(name), 0.0)
            means[name] = (self._sums[name] / total).to(value.dtype) if name in self._sums and total else value
        return means
