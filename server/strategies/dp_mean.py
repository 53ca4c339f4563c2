"""The block-wise mean of clipped updates with noise, for central differential privacy of each site.

H. B. McMahan, D. Ramage, K. Talwar, L. Zhang, "Learning Differentially Private Recurrent Language Models", ICLR 2018,
https://arxiv.org/abs/1710.06963, algorithm 1 with per-layer clipping, where a block is a layer.
Accounting: common.exchange.privacy.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from pydantic import Field
from torch import Tensor

from common.blocks import Params, block_of, valid
from common.config.experiment import Experiment
from common.exchange.privacy import clip, epsilon, new_secret, noise
from common.types import Update
from server.aggregation.block_mean import BlockMean
from server.strategies.base import StrategyOptions
from server.strategies.shared.blockwise import Block, blocks
from server.strategies.shared.collecting import CollectingStrategy

SECRET, ROUNDS = "secret", "rounds/"


@final
class DPMeanStrategy(CollectingStrategy):
    """theta_b = received_b + (sum_k clip(change of b at k, C / sqrt(B)) + N(0, (z C)^2)) / n_b over the n_b holders k.

    B is the number of the model's blocks, so a site's clipped blocks together have at most the norm C. All blocks of a
    round are then one Gaussian release with noise multiplier z: if zeros replace everything that one site sends, the
    sums move by at most C. The sites of a round and their modalities count as public. A site that took part in T rounds
    has lost epsilon(T, z, delta). Sampling does not reduce this loss, because every site knows the seed of the sample.

    The guarantee holds against the other sites and against everyone who sees the models of the rounds. It does not hold
    against the server, which sees single updates and knows the noise. It does not cover the figures that sites send in
    addition to the update: losses, validation counts and numbers of examples. It does not cover the choice of a round's
    model by those figures either.
    """

    def __init__(self, experiment: Experiment, clip: float, noise: float, delta: float) -> None:
        super().__init__(experiment)
        self.clip, self.noise, self.delta = clip, noise, delta
        self._secret = new_secret()
        self._rounds: Counter[str] = Counter()

    def state(self) -> Params:
        """The state of the base class, the secret of the noise, [32] uint8, and by site its number of rounds.

        Everyone who reads the secret can remove the noise.
        """
        rounds = {f"{ROUNDS}{site}": torch.tensor(count) for site, count in self._rounds.items()}
        return {**super().state(), SECRET: torch.frombuffer(bytearray(self._secret), dtype=torch.uint8), **rounds}

    def restore(self, state: Params) -> None:
        """Restore the result of `state`."""
        super().restore(state)
        self._secret = bytes(state[SECRET].tolist())
        counts = {name: int(count) for name, count in state.items() if name.startswith(ROUNDS)}
        self._rounds = Counter({name.removeprefix(ROUNDS): count for name, count in counts.items()})

    def combine(self, mean: BlockMean, updates: list[Update], received: Mapping[str, Tensor]) -> dict[str, Any]:
        """Add the noisy mean of each block.

        Returns by block the holders and the standard deviation of the mean's noise, and the epsilon of the site with
        the most rounds.
        """
        count = len({block_of(name) for name in received})
        figures = {}
        for block in blocks(updates, received):
            holders = len(block.holders)
            total = self._noisy_sum(block, self.clip / math.sqrt(count))
            mean.add({name: valid(name, value + total[name] / holders) for name, value in block.received.items()},
                     {block.name: 1.0})  # fmt: skip
            figures[block.name] = {"holders": holders, "noise_std": self.noise * self.clip / holders}
        self._rounds.update(update.site for update in updates)
        rounds = max(self._rounds.values())
        spent = {"epsilon": epsilon(rounds, self.noise, self.delta), "delta": self.delta, "rounds": rounds}
        return {"blocks": figures, "privacy": spent}

    def _noisy_sum(self, block: Block, bound: float) -> Params:
        """The sum of the holders' clipped changes, with noise.

        The noise depends on the sum, through a hash. So two different sums of one round, e.g. after a crash, never get
        the same noise; otherwise, their difference would reveal the update of one site. The same sum gets the same
        noise.
        """
        total: Params = {}
        for update in block.holders:
            change = {name: update.params[name].to(torch.float64) - value for name, value in block.received.items()}
            for name, value in clip(change, bound).items():
                total[name] = total[name] + value if name in total else value
        digest = hashlib.sha256()
        for _, value in sorted(total.items()):
            digest.update(value.numpy().tobytes())
        return noise(total, self.noise * self.clip, self._secret, self._round, block.name, digest.hexdigest())


class DPMean(StrategyOptions):
    """The block-wise mean of clipped updates, with noise."""

    clip: float = Field(1.0, gt=0)
    """The largest L2 norm of a site's whole update."""
    noise: float = Field(1.0, gt=0)
    """The standard deviation of the noise in a sum of updates, divided by `clip`."""
    delta: float = Field(1e-5, gt=0, lt=1)
    """The delta of the reported epsilon. Choose it well below 1 / number of sites."""

    def build(self, experiment: Experiment, probe: Path | None) -> DPMeanStrategy:
        """The strategy for an experiment."""
        return DPMeanStrategy(experiment, self.clip, self.noise, self.delta)
