"""The last good model, to which a run returns when the accuracy of a round's mean collapses.

An update can pass the checks and still ruin the mean, for example when a site poisons it or adds too much noise. Then
accuracy falls, or no site can train the model any more. If accuracy falls far, the run undoes the round and continues
from the model before. Each site that measures accuracy has one vote. The number of examples that it reports makes no
difference. So no single site can undo a round, and no single site can hide a collapse at the others.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.blocks import Params
from common.metrics import Tally

ERRORS = 4.0
"""Standard errors by which an accuracy must fall, so that chance almost never looks like a collapse."""
ABOVE_GUESSING = 2.0
"""Multiple of the accuracy of guessing that the best accuracy must reach before a collapse is possible."""


@dataclass
class LastGood:
    """The last good model.

    share: a model has collapsed when its accuracy is below this share of the best accuracy; None: never. before: the
    good model before the last. best: the best accuracy so far, by measurer (the test shard, or sites).
    """

    share: float | None
    params: Params = field(default_factory=dict)
    before: Params = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)

    def judge(self, params: Params, measured: Mapping[str, Tally]) -> str:
        """The reason why a model is rejected, or "" if it is accepted. An accepted model becomes the last good one.

        measured: by measurer, the tally with all modalities.
        """
        told = {who: tally for who, tally in measured.items() if tally.examples}
        fallen = [who for who, tally in told.items() if self._collapsed(who, tally)]
        known = [who for who in told if who in self.best]
        if self.params and 2 * len(fallen) > len(known):
            was, now = (sum(found[who] for who in fallen) / len(fallen) for found in (self.best, _accuracies(told)))
            return f"accuracy fell from {was:.1%} to {now:.1%}; the run continues from the model before"
        if params is not self.params:
            self.params, self.before = params, self.params
        for who, accuracy in _accuracies(told).items():
            self.best[who] = max(accuracy, self.best.get(who, 0.0))
        return ""

    def instead(self, params: Params) -> Params:
        """The good model that replaces one that cannot be trained; empty if there is none."""
        return self.before if params is self.params else self.params

    def _collapsed(self, who: str, tally: Tally) -> bool:
        best, accuracy = self.best.get(who, 0.0), tally.accuracy
        if self.share is None or best < ABOVE_GUESSING / len(tally.correct):
            return False
        error = math.hypot(*(_error(share, tally.examples) for share in (accuracy, best)))
        return accuracy < self.share * best and accuracy < best - ERRORS * error


def _accuracies(measured: Mapping[str, Tally]) -> dict[str, float]:
    return {who: tally.accuracy for who, tally in measured.items()}


def _error(share: float, examples: int) -> float:
    """The standard error of a share, also for few examples (A. Agresti, B. A. Coull, "Approximate Is Better than
    'Exact'", The American Statistician, 1998)."""
    adjusted = (share * examples + 2) / (examples + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (examples + 4))
