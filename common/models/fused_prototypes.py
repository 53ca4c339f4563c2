"""Late fusion with class prototypes of its fused representation, which all clients share."""

from collections.abc import Mapping

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions
from common.models.late_fusion import LateFusionModel
from common.models.prototype_fusion import Prototypes


class FusedPrototypesModel(LateFusionModel):
    """Late fusion with `Prototypes` of h = concat_m z_m in the shared block. They do not influence the prediction."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__(encoders, classes)
        self.prototypes = Prototypes(classes, self.fusion.in_features)


class FusedPrototypes(ModelOptions):
    """Late fusion with fused prototypes has no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> FusedPrototypesModel:
        """A new model with random weights."""
        return FusedPrototypesModel(encoders, classes)
