"""The alarm of a run's page: which modalities have stopped learning."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from server.report.run import Run, amount, mapping

WINDOW, SHARE = 4, 4
"""Rounds that are compared with as many before them: at least WINDOW, and 1/SHARE of a longer run."""
BEHIND, ERRORS = 0.5, 2.0


@dataclass(frozen=True)
class Stalled:
    """A modality that has stopped learning: its mean accuracy alone, in the last `window` rounds and in those before.

    guess: the accuracy of guessing. best: the mean accuracy, in the last rounds, of the modality that is ahead of all,
    whose name is `leader`.
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
    """Accuracies of a modality alone, by round, each measured on so many examples."""

    values: Sequence[float]
    examples: float

    @property
    def window(self) -> int:
        """How many rounds are recent."""
        return max(WINDOW, len(self.values) // SHARE)

    @property
    def recent(self) -> float:
        """The mean of the recent rounds."""
        return fmean(self.values[-self.window :])

    @property
    def before(self) -> float:
        """The mean of as many rounds before those."""
        return fmean(self.values[-2 * self.window : -self.window])

    def stands_still(self) -> bool:
        """Whether the recent rounds are no better than those before, but for what the choice of examples may do."""
        if len(self.values) < 2 * self.window:
            return False
        error = math.sqrt(2 * self.recent * (1 - self.recent) / (self.examples * self.window))
        return self.recent - self.before <= ERRORS * error


def stalled(courses: dict[str, Course], classes: int) -> Iterable[Stalled]:
    """The modalities that stand still where they should not.

    A modality that has learned what is in it stands still as well, so that alone is no alarm. What else it takes:
    that the modality gets, above guessing (1 / classes), less than half of what the leading modality gets, or nothing
    at all. The first is the state that FedCMI is made against, section 1 of docs/methods.md: one modality carries the
    fused loss, the others get no gradient any more. Half is a convention; what a modality could reach is not known.

    Differences within two standard errors count as none. Windows grow with the run, so that slow learning is told from
    none, and begin at four rounds: there is no alarm before the eighth.
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
    """The modalities of a run that have stopped learning, by the figures of the global model so far."""
    courses = {}
    for name in run.singles:
        values, examples = run.series(name, "accuracy")[1], amount(mapping(run.final.get(name)).get("examples"))
        if values and examples:
            courses[name] = Course(values, examples)
    return list(stalled(courses, len(run.classes)))
