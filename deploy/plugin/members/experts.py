"""A product of experts: each modality classifies on its own, and log-probabilities are added.

G. E. Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", Neural Computation 14(8), 2002,
https://doi.org/10.1162/089976602760128018, equation 1, for classifiers.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions, MultimodalModel
from common.types import Batch


class ExpertsModel(MultimodalModel):
    """log p(y | x) = sum over the observed modalities of log p_m(y | x_m), up to a constant."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__()
        heads = {m: nn.Linear(encoders[m].width, classes, bias=False) for m in encoders}
        self.branches = nn.ModuleDict(
            {m: nn.ModuleDict({"encoder": encoders[m], "head": heads[m]}) for m in sorted(encoders)}
        )
        self.bias = nn.Parameter(torch.zeros(classes))

    def predict(self, batch: Batch) -> Tensor:
        """Logits [B, K]: a missing modality adds nothing."""
        logits = self.bias.expand(len(batch), -1)
        for m in self.modalities:
            head = self.branches[m].get_submodule("head")
            votes = F.log_softmax(head(self.encode(batch, m)), dim=1)
            logits = logits + votes * batch.has(m).unsqueeze(1)
        return logits


class Experts(ModelOptions):
    """A product of experts has no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> ExpertsModel:
        """A new model with random weights."""
        return ExpertsModel(encoders, classes)
