"""The figures of tallies: what metrics.jsonl, summary.json and the report contain."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.config.component import Component
from common.config.experiment import Experiment
from common.config.metrics import metrics_by_key, standard_metrics
from common.config.task import TaskName
from common.metrics.base import Metric
from common.tasks.observed import Part, Tally


@dataclass(frozen=True)
class Named:
    """A metric, and its key in figures, e.g. "macro_f1" or "sensitivity_at_0.3"."""

    key: str
    metric: Metric

    def of(self, tally: Tally) -> float | None:
        """The figure for all classes together; None if it is not defined, or if the tally lacks its part."""
        return self.measured(tally)[0]

    def by_class(self, tally: Tally) -> list[float | None] | None:
        """The figures by class; None for a metric that has none."""
        return self.measured(tally)[1]

    def measured(self, tally: Tally) -> tuple[float | None, list[float | None] | None]:
        """The results of `of` and `by_class`, computed once."""
        part = self.part(tally)
        if part is None:
            return None, None
        found = np.asarray(self.metric.of(part), np.float64)
        if not found.ndim:
            return number(float(found)), None
        return number(self.metric.mean(found, part)), [number(value) for value in found.tolist()]

    def part(self, tally: Tally) -> Part | None:
        """The part that the metric reads, if it has examples."""
        part = tally.parts.get(self.metric.part)
        return part if part is not None and part.counts.any() else None


def standard(task: TaskName) -> list[Named]:
    """The metrics that every run of a task has."""
    return _named(standard_metrics(task))


def metrics_of(experiment: Experiment) -> list[Named]:
    """The metrics of an experiment: the standard ones of its task, and those that it names."""
    return _named(metrics_by_key(experiment.task.name, experiment.metrics))


def _named(metrics: Mapping[str, Component]) -> list[Named]:
    return [Named(key, metric) for key, metric in metrics.items() if isinstance(metric, Metric)]


def figures(tallies: Mapping[str, Tally], metrics: Sequence[Named]) -> dict[str, dict[str, Any]]:
    """The figures of every subset that has examples: each metric by its key, `examples`, `by_class` (lists by metric),
    and `errors`, by metric the largest error because of binned scores, where it is not 0."""
    return {subset: _figures(tally, metrics) for subset, tally in tallies.items() if tally.examples}


def _figures(tally: Tally, metrics: Sequence[Named]) -> dict[str, Any]:
    measured = {one.key: one.measured(tally) for one in metrics}
    told = [(one, part) for one in metrics if (part := one.part(tally)) is not None]
    errors = {one.key: error for one, part in told if (error := one.metric.error(part))}
    return {
        **{key: figure for key, (figure, _) in measured.items()},
        "examples": tally.examples,
        "by_class": {key: values for key, (_, values) in measured.items() if values is not None},
        **({"errors": errors} if errors else {}),
    }


def details(tally: Tally) -> dict[str, Any]:
    """The counts for a confusion matrix and a reliability diagram, as far as the tally has them: `confusion`, and
    `reliability` with the examples, the right ones and the mean confidence by bin."""
    found = dict[str, Any]()
    if "confusion" in tally.parts:
        found["confusion"] = tally.parts["confusion"].counts.tolist()
    if (part := tally.parts.get("calibration")) is not None:
        examples = part.counts.sum(0)
        found["reliability"] = {
            "examples": examples.tolist(),
            "right": part.counts[1].tolist(),
            "confidence": [number(s / n) if n else None for s, n in zip(part.sums.tolist(), examples, strict=True)],
        }
    return found


def number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(value) if math.isfinite(value) else None
