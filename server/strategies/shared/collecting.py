"""Strategies that need every update of a round at once."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, final

from torch import Tensor

from common.config.experiment import Experiment
from common.types import Update
from server.aggregation.block_mean import BlockMean
from server.strategies.base import MultimodalStrategy


class CollectingStrategy(MultimodalStrategy):
    """Keeps the updates of a round until all have come, so memory grows with the number of sampled clients."""

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self._updates: list[Update] = []
        self._start: Mapping[str, Tensor] = {}

    @final
    def contribute(self, mean: BlockMean, update: Update, received: Mapping[str, Tensor]) -> None:
        """Keep the update."""
        self._updates.append(update)
        self._start = received

    @final
    def finish(self, mean: BlockMean) -> dict[str, Any]:
        """Combine the updates, in the order of the sites' names."""
        updates = sorted(self._updates, key=lambda update: update.site)
        start, self._updates, self._start = self._start, [], {}
        return self.combine(mean, updates, start) if updates else {}

    @abstractmethod
    def combine(self, mean: BlockMean, updates: list[Update], received: Mapping[str, Tensor]) -> dict[str, Any]:
        """Add the result of the updates, at least one, to the mean. Returns figures for the round's report.

        received: the global parameters of all blocks at the round's start.
        """
