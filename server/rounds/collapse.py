"""The last good model: what a run goes back to when a round's mean has forgotten what was learned.

Whatever moves the mean within the bounds of the checks - a site that poisons it, one whose noise is too strong - shows
in the accuracy, or in that nobody can train the model any more. A mean under which accuracy falls far is not taken: the
run goes on from the model before. Each who measures is heard once, however many examples it says it has: no single site
undoes a round, and none hides that others have forgotten.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from common.blocks import Params
from common.metrics import Tally

ERRORS = 4.0
"""Standard errors by which an accuracy must fall, so that few examples collapse by chance alone almost never."""
ABOVE_GUESSING = 2.0
"""Times the accuracy of guessing, below which there is nothing to forget yet."""


@dataclass
class LastGood:
    """The model that is gone back to. share: of the best accuracy, below which a model has collapsed; None: never.

    before: the good model before it. best: by who measures (the test shard, or sites), the best accuracy so far.
    """

    share: float | None
    params: Params = field(default_factory=dict)
    before: Params = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)

    def judge(self, params: Params, measured: Mapping[str, Tally]) -> str:
        """Why a model is not taken; "" for one that is, which is the last good one from now on.

        measured: by who did, its tally with all modalities.
        """
        told = {who: tally for who, tally in measured.items() if tally.examples}
        fallen = [who for who, tally in told.items() if self._collapsed(who, tally)]
        known = [who for who in told if who in self.best]
        if self.params and 2 * len(fallen) > len(known):
            was, now = (sum(found[who] for who in fallen) / len(fallen) for found in (self.best, _accuracies(told)))
            return f"accuracy fell from {was:.1%} to {now:.1%}; the run goes on from the model before"
        if params is not self.params:
            self.params, self.before = params, self.params
        for who, accuracy in _accuracies(told).items():
            self.best[who] = max(accuracy, self.best.get(who, 0.0))
        return ""

    def instead(self, params: Params) -> Params:
        """The model to go back to from one that cannot be trained; empty where there is none."""
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
    """The standard error of a share, also of few examples (A. Agresti, B. A. Coull, "Approximate Is Better than
    'Exact'", The American Statistician, 1998)."""
    adjusted = (share * examples + 2) / (examples + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (examples + 4))
