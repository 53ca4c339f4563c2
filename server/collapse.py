"""The last good model: what a run goes back to when a round's mean has forgotten what was learned.

Whatever moves the mean within the bounds of the checks - a site that poisons it, one whose noise is too strong - shows
in the accuracy. A mean under which it falls far is not taken: the run goes on from the model before.
"""

import math
from dataclasses import dataclass, field

from common.blocks import Params
from common.metrics import Tally

ERRORS = 4.0
"""Standard errors by which an accuracy must fall, so that few examples collapse by chance alone almost never."""
ABOVE_GUESSING = 2.0
"""Times the accuracy of guessing, below which there is nothing to forget yet."""


@dataclass
class LastGood:
    """The model that is gone back to. share: of its accuracy, below which another one has collapsed; None: never.

    measured: what its accuracy was measured on; another measurement on something else tells nothing.
    """

    share: float | None
    params: Params = field(default_factory=dict)
    accuracy: float = 0.0
    measured: tuple[str, ...] = ()

    def judge(self, params: Params, tally: Tally | None, measured: tuple[str, ...]) -> str:
        """Why a model is not taken; "" for one that is, which is the last good one from now on. tally: of the model
        with all modalities, None where nothing is known of it."""
        if tally is None or not tally.examples:
            return ""
        accuracy = tally.accuracy
        if self.params and measured == self.measured and self._collapsed(accuracy, tally):
            return f"accuracy fell from {self.accuracy:.1%} to {accuracy:.1%}; the run goes on from the model before"
        self.params, self.accuracy, self.measured = params, accuracy, measured
        return ""

    def _collapsed(self, accuracy: float, tally: Tally) -> bool:
        if self.share is None or self.accuracy < ABOVE_GUESSING / len(tally.correct):
            return False
        error = math.hypot(*(_error(share, tally.examples) for share in (accuracy, self.accuracy)))
        return accuracy < self.share * self.accuracy and accuracy < self.accuracy - ERRORS * error


def _error(share: float, examples: int) -> float:
    """The standard error of a share, also of few examples (A. Agresti, B. A. Coull, "Approximate Is Better than
    'Exact'", The American Statistician, 1998)."""
    adjusted = (share * examples + 2) / (examples + 4)
    return math.sqrt(adjusted * (1 - adjusted) / (examples + 4))
