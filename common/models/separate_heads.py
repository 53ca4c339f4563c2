"""One linear classifier per modality, without a fusion: the classifiers' log-probabilities are added."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions, MultimodalModel
from common.types import Batch


class SeparateHeadsModel(MultimodalModel):
    """u = sum_m o_m C_m(z_m), with o_m = 1 where m is present. softmax(u) is the normalised product of the softmax
    (C_m(z_m)), and for multi-label u is the sum of the log odds. For regression, u is the mean of the present outputs.
    """

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__()
        self.classes = classes
        self.branches = nn.ModuleDict(
            {m: nn.ModuleDict({"encoder": encoders[m], "classifier": nn.Linear(encoders[m].width, classes)})
             for m in sorted(encoders)}
        )  # fmt: skip

    def heads(self, batch: Batch) -> dict[Modality, Tensor]:
        """u_m = C_m(z_m), logits [B, K], of the modalities that some row has."""
        return {
            m: self.branches[m].get_submodule("classifier")(self.encode(batch, m))
            for m in self.modalities
            if batch.holds(m)
        }

    def join(self, heads: Mapping[Modality, Tensor], batch: Batch) -> Tensor:
        """u: logits [B, K] from the logits u_m of the modalities."""
        total = torch.zeros(len(batch), self.classes, device=self.device)
        for m, logits in heads.items():
            total = total + logits * batch.has(m).unsqueeze(1)
        if self.task == "regression" and heads:
            total = total / torch.stack([batch.has(m) for m in heads]).sum(0).clamp_min(1).unsqueeze(1)
        return total

    def predict(self, batch: Batch) -> Tensor:
        """u: logits [B, K]."""
        return self.join(self.heads(batch), batch)


class SeparateHeads(ModelOptions):
    """Separate heads have no options."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> SeparateHeadsModel:
        """A new model with random weights."""
        return SeparateHeadsModel(encoders, classes)
