"""Late fusion: one linear layer on the concatenated features of the encoders, with zeros for missing modalities."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions, MultimodalModel
from common.types import Batch


class LateFusionModel(MultimodalModel):
    """u = F(concat_m z_m), with z_m = f_m(x_m), or 0 if modality m is missing."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({m: nn.ModuleDict({"encoder": encoders[m]}) for m in sorted(encoders)})
        self.fusion = nn.Linear(sum(encoder.width for encoder in encoders.values()), classes)

    def features(self, batch: Batch) -> dict[Modality, Tensor]:
        """z_m [B, D] for every modality m, with zeros in rows without m."""
        return {m: self.encode(batch, m) for m in self.modalities}

    def fuse(self, features: Mapping[Modality, Tensor]) -> Tensor:
        """u: fused logits [B, K]."""
        logits: Tensor = self.fusion(torch.cat([features[m] for m in self.modalities], dim=1))
        return logits

    def shares(self, features: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """The contribution of each modality to u, logits [B, K]: from its columns of F and an equal share of the
        bias."""
        columns = torch.split(self.fusion.weight, [features[m].shape[1] for m in self.modalities], dim=1)
        bias = self.fusion.bias / len(self.modalities)
        return {m: features[m] @ weight.T + bias for m, weight in zip(self.modalities, columns, strict=True)}

    def predict(self, batch: Batch) -> Tensor:
        """Logits [B, K]."""
        return self.fuse(self.features(batch))


class LateFusion(ModelOptions):
    """Late fusion has no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> LateFusionModel:
        """A new model with random weights."""
        return LateFusionModel(encoders, classes)
