"""Late fusion with a linear classifier on each modality's features."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions
from common.models.late_fusion import LateFusionModel
from common.types import Batch


class UnimodalHeadsModel(LateFusionModel):
    """u = F(concat_m z_m) and u_m = C_m(z_m). If a row lacks a modality, the heads of its other modalities predict."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__(encoders, classes)
        for m in self.modalities:
            self.branches[m].add_module("classifier", nn.Linear(encoders[m].width, classes))

    def classify(self, modality: Modality, features: Tensor) -> Tensor:
        """u_m: logits [B, K] for features [B, D]."""
        logits: Tensor = self.branches[modality].get_submodule("classifier")(features)
        return logits

    def predict(self, batch: Batch) -> Tensor:
        """Logits [B, K]: u for a row with all modalities, else the mean of u_m over the modalities of the row."""
        features = self.features(batch)
        if batch.is_full(self.modalities):
            return self.fuse(features)
        present = torch.stack([batch.has(m) for m in self.modalities])
        heads = torch.stack([self.classify(m, features[m]) for m in self.modalities])
        mean = (heads * present.unsqueeze(2)).sum(0) / present.sum(0).clamp_min(1).unsqueeze(1)
        return torch.where(present.all(0).unsqueeze(1), self.fuse(features), mean)


class UnimodalHeads(ModelOptions):
    """Late fusion with heads has no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> UnimodalHeadsModel:
        """A new model with random weights."""
        return UnimodalHeadsModel(encoders, classes)
