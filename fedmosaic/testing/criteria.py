"""The criteria of the tasks with options, and their formulas by numpy."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from client.methods.shared.criterion import BinaryCrossEntropy, Criterion, SquaredError
from common.config.task import TaskName
from common.types import CPU
from fedmosaic.testing.examples import CLASSES

Formula = Callable[[Tensor, Tensor], float]
"""The loss of logits [B, K] and labels [B] or [B, K]."""

WEIGHTS = torch.linspace(0.5, 2, CLASSES)
SMOOTHING = 0.2
MEAN, STD = torch.linspace(-1, 1, CLASSES), torch.linspace(0.5, 2, CLASSES)


class Recording(Criterion):
    """A criterion that keeps the logits and labels of each call."""

    seen: list[tuple[Tensor, Tensor]]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of the criterion."""
        self.seen.append((logits.detach().cpu(), labels.cpu()))
        return super().__call__(logits, labels)


class _CrossEntropy(Recording):
    pass


class _BinaryCrossEntropy(Recording, BinaryCrossEntropy):
    pass


class _SquaredError(Recording, SquaredError):
    pass


def plain(task: TaskName, device: torch.device = CPU) -> Recording:
    """The criterion of a task without weights and smoothing; for regression, with mean 0 and standard deviation 1."""
    return _made(task, device, None, 0.0, torch.zeros(CLASSES), torch.ones(CLASSES))


def changed(task: TaskName, device: torch.device = CPU) -> Recording:
    """The criterion of a task with WEIGHTS and SMOOTHING; for regression, with MEAN and STD."""
    return _made(task, device, WEIGHTS, SMOOTHING, MEAN, STD)


def formula(task: TaskName) -> Formula:
    """The loss of `changed`, by numpy."""
    formulas: dict[TaskName, Formula] = {
        "single-label": lambda logits, labels: smoothed(logits, labels, WEIGHTS, SMOOTHING),
        "multi-label": lambda logits, labels: smoothed_binary(logits, labels, WEIGHTS, SMOOTHING),
        "regression": lambda logits, values: squared_error(logits, values, MEAN, STD),
    }
    return formulas[task]


def smoothed(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> float:
    """The formula in `Criterion`."""
    u, y, w = logits.double().numpy(), labels.numpy(), weights.double().numpy()
    surprise = np.log(np.exp(u).sum(1, keepdims=True)) - u
    true = w[y] * surprise[np.arange(len(y)), y]
    return float(((1 - smoothing) * true + smoothing * (w * surprise).mean(1)).sum() / w[y].sum())


def smoothed_binary(logits: Tensor, labels: Tensor, weights: Tensor, smoothing: float) -> float:
    """The formula in `BinaryCrossEntropy`, in a loop over the labels."""
    u, y, total = logits.double().numpy(), labels.double().numpy(), 0.0
    for k, weight in enumerate(weights.tolist()):
        p, target = 1 / (1 + np.exp(-u[:, k])), (1 - smoothing) * y[:, k] + smoothing / 2
        total -= float((weight * target * np.log(p) + (1 - target) * np.log(1 - p)).mean())
    return total / len(weights)


def squared_error(outputs: Tensor, values: Tensor, mean: Tensor, std: Tensor) -> float:
    """The formula in `SquaredError`, in a loop over the targets."""
    u, y = outputs.double().numpy(), values.double().numpy()
    total = 0.0
    for k in range(u.shape[1]):
        total += float(((u[:, k] - (y[:, k] - float(mean[k])) / float(std[k])) ** 2).mean())
    return total / len(mean)


def _made(
    task: TaskName, device: torch.device, weights: Tensor | None, smoothing: float, mean: Tensor, std: Tensor
) -> Recording:
    made: Recording
    if task == "regression":
        made = _SquaredError(mean.to(device), std.to(device))
    else:
        kind = _BinaryCrossEntropy if task == "multi-label" else _CrossEntropy
        made = kind(None if weights is None else weights.to(device), smoothing)
    made.seen = []
    return made
