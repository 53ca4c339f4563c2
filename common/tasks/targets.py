"""Labels as targets of the model."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from common.config.task import TaskName
from common.tasks.labels import NO_LABEL, Label

UNLABELLED = -1
"""The class index of an example without a label."""


def targets(task: TaskName, labels: Sequence[Label], classes: Sequence[str]) -> Tensor:
    """The targets of N examples: class indices [N] int64 (UNLABELLED without a label), or for the other tasks [N, K]
    float32, where a label is 1 if it applies and 0 if not (NaN without a label)."""
    if task == "single-label":
        index = {name: number for number, name in enumerate(classes)}
        return torch.tensor([UNLABELLED if label == NO_LABEL else index[str(label)] for label in labels])
    if task == "regression":
        blank = [math.nan] * len(classes)
        return torch.tensor([blank if label == NO_LABEL else list(map(float, label)) for label in labels])
    return torch.tensor(
        [[math.nan if label == NO_LABEL else float(name in label) for name in classes] for label in labels]
    )
