"""From the figures of single runs to means, deviations and paired differences."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from deploy.study.bench.trial import Figures

CONFIDENCE = 0.95
COSTS = ("update_bytes", "train_seconds", "cpu_seconds")
"""Measures that are no shares."""


@dataclass(frozen=True)
class Aim:
    """The metric that chooses tuned values and rounds, and that leads the tables."""

    name: str = "accuracy"
    higher_is_better: bool = True

    def merit(self, value: float | None) -> float:
        """A number that is larger for better values; -inf for an unknown one."""
        if value is None:
            return -math.inf
        return value if self.higher_is_better else -value


ACCURACY = Aim()


@dataclass(frozen=True)
class Summary:
    """Mean and standard deviation (n - 1) of a measure over seeds, with the values by seed."""

    mean: float
    deviation: float
    values: Mapping[int, float]


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences to the reference over common seeds, and its confidence interval (Student's t)."""

    mean: float
    low: float
    high: float
    pairs: int


def measure(figures: "Figures", name: str, aim: Aim = ACCURACY) -> float | None:
    """A measure of a run, or None if the run does not have it.

    name: a metric, e.g. "accuracy", "macro_f1" or "spread", with all modalities of the row in the last round; "chosen"
    for that of the aim in the round chosen on validation; "accuracy:audio" for a subset; "probe:audio" for an encoder;
    one of COSTS.
    """
    if figures["status"] != "completed":
        return None
    if name in COSTS:
        return cost(figures, name)
    kind, _, part = name.partition(":")
    if kind == "probe":
        found = figures["probe"].get(part)
    else:
        line = figures["rounds"][chosen_round(figures, aim) if kind == "chosen" else -1]
        subset = line["test"].get(part or figures["complete"], {})
        found = subset.get(aim.name if kind == "chosen" else kind)
    return None if found is None else float(found)


def cost(figures: "Figures", name: str) -> float | None:
    """A cost of a run, or None if the run was made before costs were recorded.

    name: "update_bytes" for the mean size of an update; "train_seconds" for the training of all clients in all rounds;
    "cpu_seconds" for the processor's time of the whole run with its evaluations.
    """
    if "cpu_seconds" not in figures:
        return None
    if name == "cpu_seconds":
        return float(figures[name])
    total = {key: sum(line[key] for line in figures["rounds"]) for key in ("bytes_up", "updates", "train_seconds")}
    return float(total["train_seconds"] if name == "train_seconds" else total["bytes_up"] / total["updates"])


def validated(figures: "Figures", aim: Aim = ACCURACY) -> list[float | None]:
    """By round, the metric of the received model on the clients' validation examples with all modalities; None if the
    round does not have it. Older runs have the accuracy alone, as a number."""
    found = [line["received"].get(figures["complete"]) for line in figures["rounds"]]
    return [one.get(aim.name) if isinstance(one, dict) else one if aim == ACCURACY else None for one in found]


def chosen_round(figures: "Figures", aim: Aim = ACCURACY) -> int:
    """The round whose model is best on the clients' validation examples; in a tie, the earliest.

    Clients validate a model when they receive it, one round later, so the last round is not a candidate.
    """
    merits = [aim.merit(value) for value in validated(figures, aim)[1:]]
    return int(np.argmax(merits)) if merits else 0


def summarise(runs: Sequence["Figures"], name: str, aim: Aim = ACCURACY) -> Summary | None:
    """The summary over the runs that have the measure, or None if no run has it."""
    return over_seeds({run["seed"]: value for run in runs if (value := measure(run, name, aim)) is not None})


def over_seeds(values: Mapping[int, float]) -> Summary | None:
    """The summary of values by seed, or None without values."""
    if not values:
        return None
    numbers = np.array(list(values.values()))
    return Summary(float(numbers.mean()), float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0, values)


def difference(
    runs: Sequence["Figures"], reference: Sequence["Figures"], name: str, aim: Aim = ACCURACY
) -> Difference | None:
    """The difference of two groups of runs, paired by seed, or None with fewer than two pairs."""
    return paired(summarise(runs, name, aim), summarise(reference, name, aim))


def paired(own: Summary | None, other: Summary | None) -> Difference | None:
    """The difference of a summary to a reference, paired by seed, or None with fewer than two pairs."""
    if own is None or other is None:
        return None
    pairs = [own.values[seed] - other.values[seed] for seed in sorted(own.values.keys() & other.values.keys())]
    if len(pairs) < 2:
        return None
    mean, error = float(np.mean(pairs)), float(np.std(pairs, ddof=1)) / len(pairs) ** 0.5
    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(pairs) - 1)) * error
    return Difference(mean, mean - reach, mean + reach, len(pairs))
