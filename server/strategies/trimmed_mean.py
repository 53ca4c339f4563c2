"""The coordinate-wise trimmed mean.

D. Yin, Y. Chen, K. Ramchandran, P. Bartlett, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical
Rates", ICML 2018, https://arxiv.org/abs/1803.01498, definition 2. The arithmetic is SciPy's, which Flower's
FedTrimmedAvg copies.
"""

from pathlib import Path
from typing import Any, final

import torch
from pydantic import Field
from scipy.stats import trim_mean

from common.blocks import Params
from common.config.experiment import Experiment
from server.strategies.base import StrategyOptions
from server.strategies.shared.blockwise import Block, RobustStrategy


@final
class TrimmedMeanStrategy(RobustStrategy):
    """Each parameter of block b is the mean over its n_b holders without the floor(share n_b) largest values and as
    many of the smallest values.

    With at most floor(share n_b) hostile clients, every parameter stays in the range of the honest clients' values.
    With fewer than 1 / share holders, nothing is trimmed, and the result is the plain mean.
    """

    def __init__(self, experiment: Experiment, share: float) -> None:
        super().__init__(experiment)
        self.share = share

    def rule(self, block: Block) -> tuple[Params, dict[str, Any]]:
        """The trimmed means."""
        return {name: torch.as_tensor(trim_mean(change.numpy(), self.share)) for name, change in block.changes()}, {}

    def tolerated(self, holders: int) -> int:
        """The number of values that are removed at each end."""
        return int(self.share * holders)


class TrimmedMean(StrategyOptions):
    """The coordinate-wise trimmed mean."""

    share: float = Field(0.2, ge=0.01, lt=0.5)
    """The share of the holders' values that is removed at each end."""

    def build(self, experiment: Experiment, probe: Path | None) -> TrimmedMeanStrategy:
        """The strategy for an experiment."""
        return TrimmedMeanStrategy(experiment, self.share)
