"""The contract of a metric: it is computed from counts, so it does not matter at which site an example is."""

from typing import Any, get_args

import numpy as np
import pytest

from common.config.metrics import key_of
from common.config.task import MultiLabel, Regression, SingleLabel, TaskName
from common.evaluation.figures import Named
from common.metrics.base import Metric
from common.tasks.base import Task
from common.tasks.find import task_of
from common.tasks.observed import Numbers, tally

CLASSES = ("a", "b", "c")
TASKS: dict[str, Task] = {one.name: task_of(one, CLASSES) for one in (SingleLabel(), MultiLabel(), Regression())}
EXAMPLES = 60


class MetricContract:
    """Override the fixture `metric`."""

    @pytest.fixture
    def metric(self) -> Any:
        """The metric with its options."""
        raise NotImplementedError

    def test_it_reads_a_part_that_its_tasks_have(self, metric: Any) -> None:
        assert isinstance(metric, Metric)
        assert metric.tasks and metric.tasks <= set(get_args(TaskName))
        assert all(metric.part in TASKS[name].shapes() for name in metric.tasks)
        assert key_of("a-name", metric).startswith("a_name")

    def test_it_is_the_same_for_every_division_of_the_examples(self, metric: Any) -> None:
        for name in metric.tasks:
            task, one = TASKS[name], Named("x", metric)
            scores, targets = random_predictions(task)
            whole, parts = tally(task.observe(scores, targets)), tally(task.observe(scores[:7], targets[:7]))
            parts = parts + tally(task.observe(scores[7:], targets[7:]))
            value = one.of(whole)
            assert value is not None and np.isfinite(value), "the figure of random predictions must be defined"
            assert one.of(parts) == pytest.approx(value)
            assert one.by_class(parts) == pytest.approx(one.by_class(whole), nan_ok=True)

    def test_it_is_defined_or_none_for_examples_of_one_class(self, metric: Any) -> None:
        for name in metric.tasks:
            task, one = TASKS[name], Named("x", metric)
            scores, targets = random_predictions(task)
            value = one.of(tally(task.observe(scores[:1], targets[:1])))
            assert value is None or np.isfinite(value)
            assert one.of(tally(task.observe(scores[:0], targets[:0]))) is None


def random_predictions(task: Task) -> tuple[Numbers, Numbers]:
    """Scores [N, K] and targets of a task."""
    chance = np.random.default_rng(0)
    scores = chance.dirichlet(np.ones(len(CLASSES)), EXAMPLES)
    if task.name == "single-label":
        return scores, chance.integers(len(CLASSES), size=EXAMPLES).astype(np.float64)
    if task.name == "multi-label":
        return scores, (chance.random(scores.shape) < 0.4).astype(np.float64)
    return scores, scores + chance.normal(size=scores.shape)
