"""Robust rules that apply to each block among its holders, so that clients without a modality cannot outvote them."""

import itertools
import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from common.blocks import Params, by_block
from common.config.experiment import Experiment
from common.types import Update
from server.aggregation.block_mean import BlockMean
from server.strategies.shared.collecting import CollectingStrategy

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Block:
    """One block of a round: its received parameters, and the updates of its holders, at least one."""

    name: str
    received: Params
    holders: list[Update]

    def changes(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each parameter's name and changes, one per holder: [holders, ...], float64. One at a time saves
        memory."""
        for name, value in self.received.items():
            yield name, torch.stack([update.params[name].to(torch.float64) - value for update in self.holders])


def blocks(updates: list[Update], received: Mapping[str, Tensor]) -> Iterator[Block]:
    """Yield the blocks that at least one client of the round holds, in a fixed order, because messages have none."""
    for block, names in by_block(received).items():
        params = {name: received[name] for name in names}
        if holders := [update for update in updates if params.keys() <= update.params.keys()]:
            yield Block(block, params, holders)


class RobustStrategy(CollectingStrategy):
    """theta_b = received_b + rule(the changes of b's holders) for every block b.

    Every holder has the same weight. The number of examples that it reports makes no difference.
    """

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self._warned: set[str] = set()

    @abstractmethod
    def rule(self, block: Block) -> tuple[Params, dict[str, Any]]:
        """The change of the block's parameters, and figures for the round's report."""

    @abstractmethod
    def tolerated(self, holders: int) -> int:
        """The number of hostile clients among the holders against which the rule protects."""

    @final
    def combine(self, mean: BlockMean, updates: list[Update], received: Mapping[str, Tensor]) -> dict[str, Any]:
        """Apply the rule to each block. Returns by block the number of holders and of tolerated hostile clients."""
        figures = {}
        for block in blocks(updates, received):
            change, said = self.rule(block)
            mean.add({name: block.received[name] + value for name, value in change.items()}, {block.name: 1.0})
            holders = len(block.holders)
            figures[block.name] = {"holders": holders, "tolerated": self.tolerated(holders), **said}
            self._warn(block.name, holders)
        return {"blocks": figures}

    def _warn(self, block: str, holders: int) -> None:
        """Log once that a block is not protected."""
        if self.tolerated(holders) or block in self._warned:
            return
        self._warned.add(block)
        fewest = next(count for count in itertools.count(1) if self.tolerated(count))
        what = "block %s: %d clients of the round hold it, which is too few; %s protects with %d or more holders"
        log.warning(what, block, holders, type(self).__name__, fewest)
