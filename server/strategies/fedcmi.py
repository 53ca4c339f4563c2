"""FedCMI's block-wise mean over the clients that hold a modality.

Y. Fan, W. Xu, H. Wang, J. Zhu, S. Guo, "Balanced Multi-modal Federated Learning via Cross-Modal Infiltration", 2023,
https://arxiv.org/abs/2401.00894; section 1.6 of docs/methods.md.
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
class FedCMIStrategy(MultimodalStrategy):
    """The block of modality m is the mean over the sampled clients that hold m, weighted by n_k.

    The shared block is the mean over all sampled clients. A modality without sampled holders keeps its global block.
    """

    def contribute(self, mean: BlockMean, update: Update, received: Mapping[str, Tensor]) -> None:
        """Add the blocks that the client holds, with weight n_k."""
        mean.add(update.params, {block_of(name): float(update.num_examples) for name in update.params})


class FedCMI(StrategyOptions):
    """FedCMI's aggregation has no options."""

    def build(self, experiment: Experiment, probe: Path | None) -> FedCMIStrategy:
        """The strategy for an experiment."""
        return FedCMIStrategy(experiment)
