"""FedAvg's mean over every sampled client.

H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
https://arxiv.org/abs/1602.05629, algorithm 1.
"""

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
class FedAvgStrategy(MultimodalStrategy):
    """theta = sum_k n_k theta_k / sum_k n_k.

    A client without a modality cannot change that modality's block, so the mean uses the block's received value for it.
    The result equals Flower's FedAvg with clients that send the whole model, but clients send only their blocks.
    """

    def contribute(self, mean: BlockMean, update: Update, received: Mapping[str, Tensor]) -> None:
        """Add the update, completed by the received parameters, with weight n_k."""
        whole = {**received, **update.params}
        mean.add(whole, {block_of(name): float(update.num_examples) for name in whole})


class FedAvg(StrategyOptions):
    """FedAvg has no options."""

    def build(self, experiment: Experiment, probe: Path | None) -> FedAvgStrategy:
        """The strategy for an experiment."""
        return FedAvgStrategy(experiment)
