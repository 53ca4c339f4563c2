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


@dataclass(frozen=True)
class Skill:
    """How good a model is on a number of examples, and how good guessing is: see `Task.skill`. For single-label, this
    is the accuracy."""

    value: float
    guessing: float
    examples: int


ERRORS = 4.0
"""Standard errors by which an accuracy must fall, so that chance almost never looks like a collapse."""
ABOVE_GUESSING = 2.0
"""Multiple of the skill of guessing that the best skill must reach before a collapse is possible."""
LEAST_SKILL = 0.2
"""The value that the best skill must reach where guessing has the skill 0."""


@dataclass
class LastGood:
    """The last good model.

    share: a model has collapsed when its accuracy is below this share of the best accuracy; None: never. before: the
    good model before the last. best: the best skill so far, by measurer (the test shard, or sites). name: what the
    skill is called.
    """

    share: float | None
    params: Params = field(default_factory=dict)
    before: Params = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    name: str = "accuracy"

    def judge(self, params: Params, measured: Mapping[str, Skill]) -> str:
        """The reason why a model is rejected, or "" if it is accepted. An accepted model becomes the last good one.

        measured: by measurer, the skill with all modalities.
        """
        told = {who: skill for who, skill in measured.items() if skill.examples}
        fallen = [who for who, skill in told.items() if self._collapsed(who, skill)]
        known = [who for who in told if who in self.best]
        if self.params and 2 * len(fallen) > len(known):
            was, now = (sum(found[who] for who in fallen) / len(fallen) for found in (self.best, _values(told)))
            return f"{self.name} fell from {was:.1%} to {now:.1%}; the run continues from the model before"
        if params is not self.params:
            self.params, self.before = params, self.params
        for who, value in _values(told).items():
            self.best[who] = max(value, self.best.get(who, 0.0))
        return ""

    def instead(self, params: Params) -> Params:
        """The good model that replaces one that cannot be trained; empty if there is none."""
        return self.before if params is self.params else self.params

    def _collapsed(self, who: str, skill: Skill) -> bool:
        best, now = self.best.get(who, 0.0), skill.value
        if self.share is None or best < (ABOVE_GUESSING * skill.guessing or LEAST_SKILL):
            return False
        error = math.hypot(*(_error(min(max(share, 0.0), 1.0), skill.examples) for share in (now, best)))
        return now < self.share * best and now < best - ERRORS * error


def _values(measured: Mapping[str, Skill]) -> dict[str, float]:
    return {who: skill.value for who, skill in measured.items()}


def _error(share: float, examples: int) -> float:
    """The standard error of a share, also for few examples (A. Agresti, B. A. Coull, "Approximate Is Better than
    'Exact'", The American Statistician, 1998)."""
    adjusted = (share * examples + 2) / (examples + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (examples + 4))
