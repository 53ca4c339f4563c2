"""The coordinate-wise median.

D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates", ICML 2018, https://arxiv.org/abs/1803.01498, definition 1. The arithmetic is NumPy's, as in Flower's FedMedian.
"""

from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from common.blocks import Params
from common.config.experiment import Experiment
from server.strategies.base import StrategyOptions
from server.strategies.shared.blockwise import Block, RobustStrategy


@final
class MedianStrategy(RobustStrategy):
    """Each parameter of block b is the median over the n_b clients that hold b; with two holders, it is their mean.

    With fewer than n_b / 2 hostile clients, every parameter stays in the range of the honest clients' values. This
    protects when there are 3 or more holders.
    """

    def rule(self, block: Block) -> tuple[Params, dict[str, Any]]:
        """The medians."""
        return {name: torch.as_tensor(np.median(change.numpy(), axis=0)) for name, change in block.changes()}, {}

    def tolerated(self, holders: int) -> int:
        """The largest number below half of the holders."""
        return (holders - 1) // 2


class Median(StrategyOptions):
    """The median has no options."""

    def build(self, experiment: Experiment, probe: Path | None) -> MedianStrategy:
        """The strategy for an experiment."""
        return MedianStrategy(experiment)
