"""The task of an experiment."""

from collections.abc import Sequence

from common.config.task import MultiLabel, Regression
from common.config.task import Task as Options
from common.tasks.base import Task
from common.tasks.multi_label import MultiLabelTask
from common.tasks.regression import RegressionTask
from common.tasks.single_label import SingleLabelTask


def task_of(options: Options, classes: Sequence[str]) -> Task:
    """The task of an experiment's section `task`. classes: the classes, labels or targets."""
    if isinstance(options, MultiLabel):
        return MultiLabelTask(classes, options)
    if isinstance(options, Regression):
        return RegressionTask(classes, options)
    return SingleLabelTask(classes)
