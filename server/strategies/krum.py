"""Krum and Multi-Krum: the mean of the updates that are nearest to other updates.

P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries: Byzantine Tolerant Gradient
Descent", NeurIPS 2017, https://arxiv.org/abs/1703.02757, section 4; for Multi-Krum: G. Damaskinos et al., "AggregaThor:
Byzantine Machine Learning via Robust Gradient Aggregation", SysML 2019, https://github.com/LPD-EPFL/AggregaThor.
"""

from pathlib import Path
from typing import Any, final

import torch
from pydantic import Field
from torch import Tensor

from common.blocks import Params
from common.config.experiment import Experiment
from server.strategies.base import StrategyOptions
from server.strategies.shared.blockwise import Block, RobustStrategy


@final
class KrumStrategy(RobustStrategy):
    """Block b is the mean of the m clients with the least scores. A client's score is the sum of the squared distances
    to its n_b - f - 2 nearest holders, where f is the assumed number of hostile clients. Distances use only this block.

    The guarantee needs n_b >= 2 f + 3, and m <= n_b - f - 2 for m > 1. With fewer holders, the rule is the same but
    guarantees nothing. With n_b < f + 3, the score has no neighbours, and the block is the plain mean of its holders.
    """

    def __init__(self, experiment: Experiment, byzantine: int, selected: int) -> None:
        super().__init__(experiment)
        self.byzantine, self.selected = byzantine, selected

    def rule(self, block: Block) -> tuple[Params, dict[str, Any]]:
        """The mean change of the selected clients, and their sites."""
        chosen = list(range(len(block.holders)))
        if len(chosen) >= self.byzantine + 3:
            scores = krum_scores(squared_distances(block), self.byzantine)
            chosen = sorted(scores.argsort(stable=True)[: self.selected].tolist())
        change = {name: values[chosen].mean(0) for name, values in block.changes()}
        return change, {"selected": [block.holders[i].site for i in chosen]}

    def tolerated(self, holders: int) -> int:
        """The assumed number of hostile clients if the condition of the guarantee holds, else 0."""
        fewest = max(2 * self.byzantine + 3, self.byzantine + 2 + self.selected)
        return self.byzantine if holders >= fewest else 0


def squared_distances(block: Block) -> Tensor:
    """[holders, holders] squared L2 distances, over all parameters of the block.

    Flower's Krum computes them from products of whole models in float32, which loses the distances of nearby models.
    """
    count = len(block.holders)
    total = torch.zeros(count, count, dtype=torch.float64)
    for _, change in block.changes():
        rows = change.reshape(count, -1)
        total += torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    return total


def krum_scores(distances: Tensor, byzantine: int) -> Tensor:
    """[holders] sums of the squared distances to the n - f - 2 nearest others. distances: [n, n], n >= f + 3."""
    near = distances.sort(1).values[:, 1:]  # without the distance 0 to itself
    return near[:, : len(distances) - byzantine - 2].sum(1)


class Krum(StrategyOptions):
    """The mean of the updates that are nearest to others."""

    byzantine: int = Field(1, ge=1)
    """The largest number of hostile clients in a round (f in the papers)."""
    selected: int = Field(1, ge=1)
    """The number of clients in the mean (m). 1 is Krum, more is Multi-Krum."""

    def build(self, experiment: Experiment, probe: Path | None) -> KrumStrategy:
        """The strategy for an experiment."""
        return KrumStrategy(experiment, self.byzantine, self.selected)
