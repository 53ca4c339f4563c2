"""Robust rules for each block among the clients that hold it, so that those without a modality cannot outvote it."""

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
    """One block of a round: its received parameters, and the updates of the clients that hold it, at least one."""

    name: str
    received: Params
    holders: list[Update]

    def changes(self) -> Iterator[tuple[str, Tensor]]:
        """By parameter, what each holder would add to it: [holders, ...], float64. One at a time, to save memory."""
        for name, value in self.received.items():
            yield name, torch.stack([update.params[name].to(torch.float64) - value for update in self.holders])


def blocks(updates: list[Update], received: Mapping[str, Tensor]) -> Iterator[Block]:
    """The blocks that some client of the round holds, in an order of their own: a message's parameters have none."""
    for block, names in by_block(received).items():
        params = {name: received[name] for name in names}
        if holders := [update for update in updates if params.keys() <= update.params.keys()]:
            yield Block(block, params, holders)


class RobustStrategy(CollectingStrategy):
    """theta_b = received_b + rule(the changes of b's holders) for every block b.

    Every holder counts the same, whatever it says of its number of examples.
    """

    def __init__(self, experiment: Experiment) -> None:
        super().__init__(experiment)
        self._warned: set[str] = set()

    @abstractmethod
    def rule(self, block: Block) -> tuple[Params, dict[str, Any]]:
        """What is added to the block's parameters; what the round's report should say of it."""

    @abstractmethod
    def tolerated(self, holders: int) -> int:
        """How many hostile clients among so many holders the rule withstands."""

    @final
    def combine(self, mean: BlockMean, updates: list[Update], received: Mapping[str, Tensor]) -> dict[str, Any]:
        """Apply the rule to each block; by block, how many hold it and how many hostile ones it withstood."""
        figures = {}
        for block in blocks(updates, received):
            change, said = self.rule(block)
            mean.add({name: block.received[name] + value for name, value in change.items()}, {block.name: 1.0})
            holders = len(block.holders)
            figures[block.name] = {"holders": holders, "tolerated": self.tolerated(holders), **said}
            self._warn(block.name, holders)
        return {"blocks": figures}

    def _warn(self, block: str, holders: int) -> None:
        """Say once that a block is not protected."""
        if self.tolerated(holders) or block in self._warned:
            return
        self._warned.add(block)
        fewest = next(count for count in itertools.count(1) if self.tolerated(count))
        what = "block %s: %d clients of the round hold it, too few; %s withstands a hostile one from %d on"
        log.warning(what, block, holders, type(self).__name__, fewest)
