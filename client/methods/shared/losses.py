"""Loss terms that several methods share."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from common.modality import Modality
from common.types import Batch


def unimodal_loss(
    logits: Mapping[Modality, Tensor], batch: Batch, criterion: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy
) -> Tensor:
    """sum_m CE(u_m, y), with the term of m over the rows that have m.

    logits: u_m [B, K] by modality. criterion: CE, the loss of logits [n, K] and labels [n].
    """
    rows = {m: batch.index(m) for m in logits}
    return total([criterion(u[rows[m]], batch.labels[rows[m]]) for m, u in logits.items()], batch)


def total(losses: Sequence[Tensor], batch: Batch) -> Tensor:
    """The sum of scalars; 0 on the batch's device without any."""
    return torch.stack(list(losses)).sum() if losses else torch.zeros((), device=batch.device)


def mean_confidence(logits: Mapping[Modality, Tensor], batch: Batch) -> dict[Modality, float]:
    """The mean of softmax(u_m)[y] over the rows that have m, by modality. Waits for the device once. logits: u_m
    [B, K] by modality."""
    means = [true_class_confidence(u, batch.labels)[batch.index(m)].mean() for m, u in logits.items()]
    return dict(zip(logits, torch.stack(means).tolist(), strict=True)) if means else {}


def true_class_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """softmax(u)[y] for each row [B], without gradient. logits: u [B, K]."""
    return logits.detach().softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
