"""Loss terms that several methods share."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from common.modality import Modality
from common.types import Batch


def unimodal_loss(logits: Mapping[Modality, Tensor], batch: Batch) -> Tensor:
    """sum_m CE(u_m, y), with the term of m over the rows that have m. logits: u_m [B, K] by modality."""
    losses = [F.cross_entropy(u[batch.has(m)], batch.labels[batch.has(m)]) for m, u in logits.items()]
    return torch.stack(losses).sum() if losses else torch.zeros(())


def true_class_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """softmax(u)[y] for each row [B], without gradient. logits: u [B, K]."""
    return logits.detach().softmax(1).gather(1, labels.unsqueeze(1)).squeeze(1)
