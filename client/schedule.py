"""The learning rate as a function of round, epoch and step, so that a resumed run has the same rates.

Warm-up: P. Goyal et al., "Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 2.2. Cosine:
I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
https://arxiv.org/abs/1608.03983, equation 5, without restarts.
"""

import math
from dataclasses import dataclass

from common.config.experiment import Train


@dataclass(frozen=True)
class Schedule:
    """The learning rates of a run of a number of rounds."""

    settings: Train
    rounds: int

    def rates(self, number: int, epoch: int, steps: int) -> list[float]:
        """The learning rate of each step of an epoch. number: the round, from 1. epoch: from 0, within the round.
        steps: the client's steps per epoch, S.

        With W epochs of warm-up in a run of T epochs, and t epochs before this one, the rate of step i, from 0, is

            lr * min(1, (t + (i + 1) / S) / W) * decay(max(0, (t - W) / (T - W)))
            decay(p) = 1 (constant), (1 + cos(pi p)) / 2 (cosine), 1 - p (linear)

        So the last step of the warm-up has the rate lr, and the rates after the warm-up change once per epoch.
        """
        highest = self.settings.lr * self._decay(number - 1 + epoch / self.settings.epochs)
        before = (number - 1) * self.settings.epochs + epoch
        return [highest * self._warm(before + (i + 1) / steps) for i in range(steps)]

    def _warm(self, done: float) -> float:
        """The factor of the warm-up for a step after which `done` epochs have passed."""
        return min(1.0, done / self.settings.warmup) if self.settings.warmup else 1.0

    def _decay(self, begun: float) -> float:
        """The factor of an epoch before which `begun` rounds have passed."""
        warmup = self.settings.warmup / self.settings.epochs
        share = (begun - warmup) / (self.rounds - warmup) if begun > warmup else 0.0
        if self.settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        return 1 - share if self.settings.schedule == "linear" else 1.0
