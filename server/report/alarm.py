"""The alarm of a run's page: the modalities that have stopped learning."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from server.report.run import Run, amount, mapping

WINDOW, SHARE = 4, 4
"""Number of last rounds that are compared with as many rounds before: 1/SHARE of the run, and at least WINDOW."""
BEHIND, ERRORS = 0.5, 2.0


@dataclass(frozen=True)
class Stalled:
    """A modality that has stopped learning.

    recent: its mean accuracy alone in the last `window` rounds. before: the same in as many rounds before. guess: the
    accuracy of guessing. leader: the best modality. best: the leader's mean accuracy in the last rounds.
    """

    modality: str
    window: int
    recent: float
    before: float
    guess: float
    leader: str
    best: float


@dataclass(frozen=True)
class Course:
    """The accuracies of a modality alone, by round. examples: the number of examples behind each accuracy."""

    values: Sequence[float]
    examples: float

    @property
    def window(self) -> int:
        """The number of recent rounds."""
        return max(WINDOW, len(self.values) // SHARE)

    @property
    def recent(self) -> float:
        """The mean of the recent rounds."""
        return fmean(self.values[-self.window :])

    @property
    def before(self) -> float:
        """The mean of as many rounds before the recent ones."""
        return fmean(self.values[-2 * self.window : -self.window])

    def stands_still(self) -> bool:
        """Whether the recent rounds are not better than the rounds before, beyond sampling error."""
        if len(self.values) < 2 * self.window:
            return False
        error = math.sqrt(2 * self.recent * (1 - self.recent) / (self.examples * self.window))
        return self.recent - self.before <= ERRORS * error


def stalled(courses: dict[str, Course], classes: int) -> Iterable[Stalled]:
    """The modalities that have stopped learning too early.

    A modality that has learned everything in its data also stops improving, so this condition alone raises no alarm. A
    second condition must hold: the modality's accuracy above guessing (1 / classes) is less than half of the leading
    modality's, or not distinguishable from 0. FedCMI addresses this state, see section 1 of docs/methods.md: one
    modality carries the fused loss, and the others get no gradient any more. Half is a convention, because the accuracy
    that a modality could reach is unknown.

    Differences within two standard errors count as none. Windows grow with the run, so that slow learning is
    distinguished from no learning. The smallest window is four rounds, so there is no alarm before the eighth round.
    """
    if classes < 2 or not courses:
        return
    guess = 1 / classes
    leader = max(courses, key=lambda name: courses[name].recent)
    best = courses[leader].recent
    for name, course in courses.items():
        luck = ERRORS * math.sqrt(guess * (1 - guess) / course.examples)
        is_weak = course.recent - guess < max(BEHIND * (best - guess), luck)
        if is_weak and course.stands_still():
            yield Stalled(name, course.window, course.recent, course.before, guess, leader, best)


def alarms(run: Run) -> list[Stalled]:
    """The modalities of a run that have stopped learning, from the figures of the global model so far."""
    courses = {}
    if run.metric not in ("accuracy", "auroc"):  # other metrics have no value for guessing
        return []
    for name in run.singles:
        values, examples = run.series(name, run.metric)[1], amount(mapping(run.final.get(name)).get("examples"))
        if values and examples:
            courses[name] = Course(values, examples)
    return list(stalled(courses, 2 if run.metric == "auroc" else len(run.classes)))
