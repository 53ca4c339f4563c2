"""Computes class prototypes from sums of one modality's features by class."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.batches import batches
from common.modality import Modality
from common.models.base import MultimodalModel
from common.models.prototype_fusion import Prototypes
from common.types import Batch


@dataclass(frozen=True)
class ClassSums:
    """The sums [K, D] of features and the counts [K] of examples, by class."""

    sums: Tensor
    counts: Tensor

    def means(self) -> Tensor:
        """The class means [K, D]; NaN for a class without examples."""
        return self.sums / self.counts.unsqueeze(1)


def members(labels: Tensor, classes: int) -> Tensor:
    """The membership of each example in each class [B, K], 0 or 1: the one-hot form of class indices [B]; the labels
    themselves for multi-label [B, K], where an example is in any number of classes."""
    return F.one_hot(labels, classes).float() if labels.dim() == 1 else labels


@torch.no_grad()
def class_sums(model: MultimodalModel, examples: Batch, modality: Modality, classes: int, batch_size: int) -> ClassSums:
    """The sums over the examples that have the modality, computed with the model in eval mode. For multi-label, an
    example counts for each of its labels."""
    model.eval()
    present = examples.rows(examples.has(modality))
    sums = torch.zeros(classes, model.encoder(modality).width, device=model.device)
    counts = torch.zeros(classes, device=model.device)
    for batch in batches(present, batch_size, model.device):
        member = members(batch.labels, classes)
        sums += member.T @ model.encode(batch, modality)
        counts += member.sum(0)
    return ClassSums(sums, counts)


def write_sums(prototypes: Prototypes, own: ClassSums, examples: int) -> None:
    """Write a client's own sums into the prototypes that it sends. examples: its number of examples."""
    prototypes.sums.copy_(own.sums / examples)
    prototypes.shares.copy_(own.counts / examples)
