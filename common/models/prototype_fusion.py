"""Late fusion with class prototypes in its branches, which FedProto exchanges."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions
from common.models.late_fusion import LateFusionModel


class Prototypes(nn.Module):
    """Class means of one modality's features, in a form that the server's block-wise means aggregate exactly.

    sums [K, D] and shares [K] are the feature sums and the counts by class, both divided by the client's number of
    examples n_k. After the server's mean with weights n_k, sums / shares is the mean over all examples of all clients.
    """

    sums: Tensor
    shares: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(classes, width))
        self.register_buffer("shares", torch.zeros(classes))

    def means(self) -> Tensor:
        """The class means [K, D]; NaN for a class without examples."""
        return self.sums / self.shares.unsqueeze(1)


class PrototypeFusionModel(LateFusionModel):
    """Late fusion with `Prototypes` in each branch. They do not influence the prediction."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__(encoders, classes)
        for m in self.modalities:
            self.branches[m].add_module("prototypes", Prototypes(classes, encoders[m].width))

    def prototypes(self, modality: Modality) -> Prototypes:
        """The prototypes of a modality."""
        found = self.branches[modality].get_submodule("prototypes")
        assert isinstance(found, Prototypes)
        return found


class PrototypeFusion(ModelOptions):
    """Late fusion with prototypes has no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> PrototypeFusionModel:
        """A new model with random weights."""
        return PrototypeFusionModel(encoders, classes)
