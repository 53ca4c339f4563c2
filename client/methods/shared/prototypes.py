"""Computes class prototypes from sums of one modality's features by class."""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.data.batches import batches
from common.modality import Modality
from common.models.base import MultimodalModel
from common.types import Batch


@dataclass(frozen=True)
class ClassSums:
    """The sums [K, D] of features and the counts [K] of examples, by class."""

    sums: Tensor
    counts: Tensor

    def means(self) -> Tensor:
        """The class means [K, D]; NaN for a class without examples."""
        return self.sums / self.counts.unsqueeze(1)


@torch.no_grad()
def class_sums(model: MultimodalModel, examples: Batch, modality: Modality, classes: int, batch_size: int) -> ClassSums:
    """The sums over the examples that have the modality, computed with the model in eval mode."""
    model.eval()
    present = examples.rows(examples.has(modality))
    sums = torch.zeros(classes, model.encoder(modality).width, device=model.device)
    for batch in batches(present, batch_size, model.device):
        sums.index_add_(0, batch.labels, model.encode(batch, modality))
    return ClassSums(sums, torch.bincount(present.labels, minlength=classes).to(sums))
