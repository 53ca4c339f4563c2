"""The labels of a shard: which labels occur together, and the distribution of each target."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from common.config.task import TaskName
from common.data.shard import ShardInfo
from common.tasks.labels import NO_LABEL, Label
from common.tasks.targets import targets
from common.words.units import few
from deploy.shards.inspection.distribution import histogram, quantiles
from server.sites.attention import unlike

LISTED = 5
"""The maximum number of names in a sentence."""
FEWEST = 5
"""The smallest number of examples from which labels that are always together are noted."""
FAR = 5
"""How many times larger or smaller than `std` of the experiment a standard deviation is noted."""
DIGITS = 4
"""Significant digits of means and standard deviations in an experiment."""
NAMED: dict[TaskName, tuple[str, str]] = {
    "single-label": ("class", "classes"), "multi-label": ("label", "labels"), "regression": ("target", "targets")
}  # fmt: skip
"""The word for the names in `classes` of shard.json, and its plural."""


def counted(info: ShardInfo, examples: int) -> str:
    """The numbers of examples and of classes, labels or targets, e.g. "60 examples of 3 classes"."""
    one, several = NAMED[info.task]
    count = len(info.classes)
    if info.task == "single-label":
        return f"{examples:,} examples of {count} {several}"
    return f"{examples:,} examples, {count} {one if count == 1 else several}"


@dataclass(frozen=True)
class LabelSets:
    """The labels of a multi-label shard. applies: [N, K], whether label k applies to labelled example n."""

    names: Sequence[str]
    applies: NDArray[np.bool_]

    @property
    def without(self) -> int:
        """The number of examples to which no label applies."""
        return int((~self.applies.any(1)).sum())

    @property
    def per_example(self) -> dict[int, int]:
        """By number of labels, the number of examples with so many labels."""
        return dict(sorted(Counter(self.applies.sum(1).tolist()).items()))

    @property
    def together(self) -> list[list[str]]:
        """Groups of labels that apply to the same examples, at least FEWEST of them, but not to all."""
        groups = defaultdict[bytes, list[str]](list)
        for name, column in zip(self.names, self.applies.T, strict=True):
            if FEWEST <= column.sum() < len(column):
                groups[np.packbits(column).tobytes()].append(name)
        return [names for names in groups.values() if len(names) > 1]

    def problems(self) -> Iterator[str]:
        """Labels that the shard does not teach."""
        shares = self.applies.mean(0)
        for share, what in ((0.0, "no example has"), (1.0, "every example has")):
            if names := [name for name, own in zip(self.names, shares, strict=True) if own == share]:
                label = "label" if len(names) == 1 else "labels"
                yield f"{what} the {label} {few(names, LISTED)}: a model cannot learn from this shard when it applies"
        for names in self.together:
            yield f"the labels {few(names, LISTED)} are always together"

    def to_json(self) -> dict[str, Any]:
        """JSON values of the figures."""
        counts = {str(number): examples for number, examples in self.per_example.items()}
        return {"without": self.without, "per_example": counts, "together": self.together}


@dataclass(frozen=True)
class TargetSeen:
    """The values of one target."""

    numbers: Sequence[float]

    @property
    def mean(self) -> float:
        """The mean, with a few digits."""
        return _short(float(np.mean(self.numbers)))

    @property
    def std(self) -> float:
        """The standard deviation, with a few digits; 0 if all values are equal."""
        return _short(float(np.std(self.numbers))) if min(self.numbers) < max(self.numbers) else 0.0

    def problems(self, scale: tuple[float, float] | None) -> Iterator[str]:
        """Properties that prevent learning. scale: mean and std in the experiment's task; None if there is no task."""
        if not self.std:
            yield f"it is always {self.numbers[0]:g}: a model cannot learn from it"
        elif scale and not self._fits(*scale):
            said = f"mean {self.mean:g} and standard deviation {self.std:g}"
            yield f"{said}, but the experiment's task has mean {scale[0]:g} and std {scale[1]:g}"

    def _fits(self, mean: float, std: float) -> bool:
        return abs(self.mean - mean) <= 3 * std and std / FAR <= self.std <= FAR * std

    def to_json(self) -> dict[str, Any]:
        """JSON values of the figures."""
        own = {"examples": len(self.numbers), "mean": self.mean, "std": self.std}
        return own | {"quantiles": quantiles(self.numbers), "histogram": histogram(self.numbers)}


def label_sets(info: ShardInfo, labels: Sequence[Label]) -> LabelSets | None:
    """The labels of examples; None for another task, and without labels. Examples without a label are left out."""
    known = [label for label in labels if label != NO_LABEL]
    if info.task != "multi-label" or not known:
        return None
    return LabelSets(info.classes, targets(info.task, known, info.classes).numpy() == 1)


def targets_seen(info: ShardInfo, labels: Sequence[Label]) -> dict[str, TargetSeen]:
    """The values of each target; empty for another task, and without labels."""
    known = [list(map(float, label)) for label in labels if label != NO_LABEL] if info.task == "regression" else []
    return dict(zip(info.classes, map(TargetSeen, zip(*known, strict=True)), strict=True)) if known else {}


def task_line(info: ShardInfo, seen: Mapping[str, TargetSeen]) -> str:
    """The line `task` of an experiment for a shard. seen: the values of the targets, for regression."""
    if info.task != "regression":
        return f"task: {info.task}"
    means = {name: target.mean for name, target in seen.items()}
    stds = {name: target.std for name, target in seen.items() if target.std}
    task = {"name": info.task, "mean": means, "std": stds}
    return f"task: {yaml.safe_dump(task, default_flow_style=True, sort_keys=False, width=10_000).strip()}"


def unlike_labels(here: ShardInfo, there: ShardInfo) -> Iterator[str]:
    """The differences between the labels of two shards."""
    if here.task != there.task:
        yield f"the labels are for task {here.task}, those of the other shard for task {there.task}"
    elif here.classes and there.classes and here.classes != there.classes:
        yield f"the {NAMED[here.task][1]} of the other shard differ: {unlike(there.classes, here.classes)}"


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
