"""Loss terms that several methods share."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from client.methods.shared.criterion import Criterion
from common.modality import Modality
from common.types import Batch


def unimodal_loss(logits: Mapping[Modality, Tensor], batch: Batch, criterion: Criterion) -> Tensor:
    """sum_m CE(u_m, y), with the term of m over the rows that have m.

    logits: u_m [B, K] by modality. criterion: CE.
    """
    rows = {m: batch.index(m) for m in logits}
    return total([criterion(u[rows[m]], batch.labels[rows[m]]) for m, u in logits.items()], batch)


def total(losses: Sequence[Tensor], batch: Batch) -> Tensor:
    """The sum of scalars; 0 on the batch's device without any."""
    return torch.stack(list(losses)).sum() if losses else torch.zeros((), device=batch.device)


def mean_confidence(logits: Mapping[Modality, Tensor], batch: Batch, criterion: Criterion) -> dict[Modality, float]:
    """The mean of the criterion's confidence over the rows that have m, by modality. Waits for the device once. logits:
    u_m [B, K] by modality."""
    means = [criterion.confidence(u, batch.labels)[batch.index(m)].mean() for m, u in logits.items()]
    return dict(zip(logits, torch.stack(means).tolist(), strict=True)) if means else {}


def by_row(values: Tensor, like: Tensor) -> Tensor:
    """Values of rows [B] in a shape that broadcasts to a tensor [B, ...]."""
    return values.reshape(-1, *[1] * (like.dim() - 1))
