"""Late fusion in which class prototypes fill the slots of missing modalities.

    training    u   = F(concat_m x_m)         x_m = z_m where m is present, else c_m,y: the prototype of the row's class
    prediction  u_k = F_k(concat_m x_m,k)     x_m,k = z_m where m is present, else c_m,k

In a prediction the class is not known. Therefore the logit of each class assumes that class: its missing slots have its
own prototypes. A class without a prototype has the mean over all classes; before the first prototypes, missing slots
have zeros.

The prototypes are in the shared block, because a client needs those of the modalities that it does not hold.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions
from common.models.late_fusion import LateFusionModel
from common.models.prototype_fusion import Prototypes
from common.types import Batch


class PrototypeFillModel(LateFusionModel):
    """Late fusion with the class prototypes of every modality."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__(encoders, classes)
        self.library = nn.ModuleDict({m: Prototypes(classes, encoders[m].width) for m in self.modalities})

    def prototypes(self, modality: Modality) -> Prototypes:
        """The prototypes of a modality."""
        found = self.library[modality]
        assert isinstance(found, Prototypes)
        return found

    def fillers(self, modality: Modality) -> Tensor:
        """c_m [K, D]: the prototype of each class, or the mean over all classes for a class without one."""
        prototypes = self.prototypes(modality)
        mean = (prototypes.sums.sum(0) / prototypes.shares.sum()).nan_to_num()
        return prototypes.means().where(prototypes.shares.unsqueeze(1) > 0, mean)

    def fill(self, features: Mapping[Modality, Tensor], batch: Batch) -> dict[Modality, Tensor]:
        """x_m [B, D] in training: z_m, and the prototypes of the rows' labels in rows without m. features: z_m."""
        return {
            m: z.where(batch.has(m).unsqueeze(1), self.fillers(m)[batch.labels].to(z.dtype))
            for m, z in features.items()
        }

    def predict(self, batch: Batch) -> Tensor:
        """u: logits [B, K]. Each class is assumed in its own logit."""
        features = self.features(batch)
        logits = self.fuse(features)
        columns = torch.split(self.fusion.weight, [features[m].shape[1] for m in self.modalities], dim=1)
        for m, weight in zip(self.modalities, columns, strict=True):
            assumed = (weight * self.fillers(m)).sum(1)
            logits = logits + assumed * ~batch.has(m).unsqueeze(1)
        return logits


class PrototypeFill(ModelOptions):
    """Late fusion with prototypes in missing slots has no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> PrototypeFillModel:
        """A new model with random weights."""
        return PrototypeFillModel(encoders, classes)
