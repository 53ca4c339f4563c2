"""The learning rate as a function of round, epoch and step, so that a resumed run has the same rates.

Warm-up: P. Goyal et al., "Accurate, Large Minibatch SGD", 2017, https://arxiv.org/abs/1706.02677, section 2.2. Cosine:
I. Loshchilov, F. Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
https://arxiv.org/abs/1608.03983, equation 5, without restarts.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from common.config.experiment import Train


@dataclass(frozen=True)
class Schedule:
    """The learning rates of a run of a number of rounds."""

    settings: Train
    rounds: int

    def passes(self, number: int, steps: int) -> Iterator[list[float]]:
        """The learning rates of a round by pass over the examples, with one rate per step. number: the round, from 1.
        steps: the client's steps per whole pass, S. With `train.steps`, the last pass may have fewer."""
        length = self.settings.per_round
        if self.settings.steps is None:
            yield from (self._of_epoch(number, epoch, steps) for epoch in range(length))
            return
        for first in range(0, length, steps):
            yield [self._of_step(number, step) for step in range(first, min(first + steps, length))]

    def _of_epoch(self, number: int, epoch: int, steps: int) -> list[float]:
        """With W epochs of warm-up in a run of T epochs, and t epochs before this one, the rate of step i, from 0, is

            lr * min(1, (t + (i + 1) / S) / W) * decay(max(0, (t - W) / (T - W)))
            decay(p) = 1 (constant), (1 + cos(pi p)) / 2 (cosine), 1 - p (linear)

        So the last step of the warm-up has the rate lr, and the rates after the warm-up change once per epoch.
        """
        highest = self.settings.lr * self._decay(number - 1 + epoch / self.settings.per_round)
        before = (number - 1) * self.settings.per_round + epoch
        return [highest * self._warm(before + (i + 1) / steps) for i in range(steps)]

    def _of_step(self, number: int, step: int) -> float:
        """With `train.steps`, W and T count steps. With t steps of the run before this one, its rate is

        lr * min(1, (t + 1) / W) * decay(max(0, (t - W) / (T - W)))
        """
        before, length = number - 1, self.settings.per_round
        return self.settings.lr * self._decay(before + step / length) * self._warm(before * length + step + 1)

    def _warm(self, done: float) -> float:
        """The factor of the warm-up for a step after which `done` epochs or steps have passed."""
        return min(1.0, done / self.settings.warmup) if self.settings.warmup else 1.0

    def _decay(self, begun: float) -> float:
        """The factor of an epoch or step before which `begun` rounds have passed."""
        warmup = self.settings.warmup / self.settings.per_round
        share = (begun - warmup) / (self.rounds - warmup) if begun > warmup else 0.0
        if self.settings.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * share))
        return 1 - share if self.settings.schedule == "linear" else 1.0
