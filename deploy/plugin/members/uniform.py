"""Every client that holds a block has the same weight. The number of its examples makes no difference."""

from collections.abc import Mapping
from pathlib import Path
from typing import final

from torch import Tensor

from common.blocks import block_of
from common.config.experiment import Experiment
from common.types import Update
from server.aggregation.block_mean import BlockMean
from server.strategies.base import MultimodalStrategy, StrategyOptions


@final
class UniformStrategy(MultimodalStrategy):
    """theta_b = the mean of theta_k,b over the sampled clients that hold block b."""

    def contribute(self, mean: BlockMean, update: Update, received: Mapping[str, Tensor]) -> None:
        """Add the blocks that the client holds, with weight 1."""
        mean.add(update.params, {block_of(name): 1.0 for name in update.params})


class Uniform(StrategyOptions):
    """The uniform mean has no options."""

    def build(self, experiment: Experiment, probe: Path | None) -> UniformStrategy:
        """The strategy for an experiment."""
        return UniformStrategy(experiment)
