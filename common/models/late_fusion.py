"""Late fusion: the encoders' features side by side, zeros for what is missing, one linear layer on top."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.encoders.base import Encoder
from common.models.base import ModelOptions, MultimodalModel
from common.types import Batch, Modality


class LateFusionModel(MultimodalModel):
    """u = F(concat_m z_m), with z_m = f_m(x_m), or 0 where modality m is missing."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({m: nn.ModuleDict({"encoder": encoders[m]}) for m in sorted(encoders)})
        self.fusion = nn.Linear(sum(encoder.width for encoder in encoders.values()), classes)

    def predict(self, batch: Batch) -> Tensor:
        """Logits [B, K]."""
        logits: Tensor = self.fusion(torch.cat([self.encode(batch, m) for m in self.modalities], dim=1))
        return logits


class LateFusion(ModelOptions):
    """Late fusion has no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> LateFusionModel:
        """A new model with random weights."""
        return LateFusionModel(encoders, classes)
