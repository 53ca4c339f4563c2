"""The alarm: a modality that has stopped learning is told from one that learns, slowly or not, and from one that has
learned what there is."""

import math
import random
from itertools import pairwise

import pytest

from server.report.alarm import Course, alarms, stalled
from server.report.run import Run

EXAMPLES, CLASSES = 400, 10
GUESS = 1 / CLASSES


def measured(course: list[float], seed: int) -> Course:
    """Accuracies as a test set of EXAMPLES would show them: sums of that many coin tosses."""
    toss = random.Random(seed)
    return Course([sum(toss.random() < p for _ in range(EXAMPLES)) / EXAMPLES for p in course], EXAMPLES)


def names(seed: int, **courses: list[float]) -> list[str]:
    """Which modalities are said to have stopped."""
    noisy = {name: measured(course, seed * 10 + i) for i, (name, course) in enumerate(courses.items())}
    return [found.modality for found in stalled(noisy, CLASSES)]


def rising(rounds: int, best: float, pace: float) -> list[float]:
    return [GUESS + (best - GUESS) * (1 - math.exp(-i / pace)) for i in range(rounds)]


STUCK = {
    "never learned": [GUESS] * 40,
    "learned a little, then nothing": [*rising(6, 0.25, 2.0), *[0.25] * 34],
    "fell back": [*rising(15, 0.85, 4.0), *[0.35] * 25],
}
SOUND = {
    "learns like the other": rising(40, 0.85, 5.0),
    "has learned what there is": [*rising(8, 0.6, 2.0), *[0.6] * 32],
    "is slow": [GUESS + 0.25 * i / 40 for i in range(40)],
}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("course", STUCK.values(), ids=STUCK)
def test_a_stuck_modality_beside_one_that_learns_gives_an_alarm(course: list[float], seed: int) -> None:
    assert names(seed, audio=rising(40, 0.9, 5.0), image=course) == ["image"]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("course", SOUND.values(), ids=SOUND)
def test_a_sound_modality_gives_none(course: list[float], seed: int) -> None:
    assert names(seed, audio=rising(40, 0.9, 5.0), image=course) == []


def test_where_nothing_is_learned_every_modality_gives_an_alarm() -> None:
    level = Course([GUESS] * 20, EXAMPLES)
    assert [found.modality for found in stalled({"audio": level, "image": level}, CLASSES)] == ["audio", "image"]


def test_an_alarm_ends_when_the_modality_learns_again() -> None:
    late = [GUESS] * 20 + rising(20, 0.8, 5.0)
    audio = rising(40, 0.9, 5.0)
    told = [bool(names(1, audio=audio[:end], image=late[:end])) for end in range(1, 41)]
    assert told[:7] == [False] * 7  # windows of four do not fit in twice before the eighth round
    assert all(told[7:20])
    assert not any(told[26:])
    assert sum(one != other for one, other in pairwise(told)) == 2


@pytest.mark.parametrize(("classes", "examples"), [(0, 400), (1, 400), (10, 0)])
def test_without_classes_or_examples_nothing_is_said(classes: int, examples: int) -> None:
    figures = {"accuracy": GUESS, "by_class": {"sensitivity": [GUESS] * classes}, "examples": examples}
    lines = [{"round": i, "test": {"image": figures}} for i in range(20)]
    assert alarms(Run({"classes": [str(i) for i in range(classes)]}, lines, "")) == []


# Accuracies alone, by round from the initial model on, as the runs of these files give them (seed 1).
BIRDS_FEDMVP = {  # configs/birds-mini-fedmvp.yaml; 240 test examples, 48 classes
    "image": [4, 32, 55, 67, 80, 83, 84, 79, 79, 86, 86],
    "text": [8, 12, 10, 8, 8, 7, 7, 9, 11, 11, 11],
}
DIGITS_FEDAVG = {  # configs/digits-mini-fedavg.yaml with federation.rounds=16; 300 test examples, 10 classes
    "audio": [15, 180, 251, 270, 279, 280, 278, 281, 280, 283, 286, 286, 284, 282, 286, 289, 286],
    "image": [17, 187, 202, 205, 205, 205, 203, 200, 200, 198, 199, 195, 196, 196, 196, 197, 196],
}


def alarmed(run: dict[str, list[int]], examples: int, classes: int) -> dict[int, list[str]]:
    """The modalities that have stopped, after each round that has any."""
    found = {}
    for done in range(1, 1 + len(run["image"])):
        courses = {name: Course([hits / examples for hits in right[:done]], examples) for name, right in run.items()}
        if stopped := [stall.modality for stall in stalled(courses, classes)]:
            found[done - 1] = stopped
    return found


def test_the_captions_of_the_birds_are_not_learned_and_the_alarm_says_so_from_the_first_round_it_can() -> None:
    assert alarmed(BIRDS_FEDMVP, 240, 48) == {done: ["text"] for done in range(7, 11)}


def test_the_noisy_digits_stop_at_what_is_in_them_and_there_is_no_alarm() -> None:
    assert alarmed(DIGITS_FEDAVG, 300, 10) == {}
