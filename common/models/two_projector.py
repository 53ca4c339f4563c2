"""FedCMI's architecture. Every modality has a self-projector and an infiltration projector.

Y. Fan, W. Xu, H. Wang, J. Zhu, S. Guo, "Balanced Multi-modal Federated Learning via Cross-Modal Infiltration", 2023,
https://arxiv.org/abs/2401.00894.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions, MultimodalModel
from common.types import Batch


class Branch(nn.Module):
    """The layers of one modality: encoder f_m, self-projector S_m, infiltration projector P_m, and the classifier C_m
    for both projectors."""

    def __init__(self, encoder: Encoder, width: int, depth: int, classes: int, shared: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.self_projector = projector(encoder.width, width, depth)
        self.infiltration_projector = self.self_projector if shared else projector(encoder.width, width, depth)
        self.classifier = nn.Linear(width, classes)


class Features:
    """The projected features of a batch, [B, D] per modality: s_m = S_m(z_m) in `own`, p_m = P_m(z_m) in
    `infiltration`."""

    def __init__(self, own: dict[Modality, Tensor], infiltration: dict[Modality, Tensor]) -> None:
        self.own = own
        self.infiltration = infiltration


def projector(inputs: int, width: int, depth: int) -> nn.Sequential:
    """`depth` linear layers with ReLU between them."""
    layers: list[nn.Module] = [nn.Linear(inputs, width)]
    for _ in range(depth - 1):
        layers += [nn.ReLU(), nn.Linear(width, width)]
    return nn.Sequential(*layers)


class TwoProjectorModel(MultimodalModel):
    """FedCMI's model for any number of modalities (section 1.1 of docs/methods.md)."""

    def __init__(
        self,
        encoders: Mapping[Modality, Encoder],
        classes: int,
        width: int,
        depth: int,
        shared: bool,
        fill: Literal["infiltration", "zero"],
    ) -> None:
        super().__init__()
        self.width, self.fill = width, fill
        self.branches = nn.ModuleDict({m: Branch(encoders[m], width, depth, classes, shared) for m in sorted(encoders)})
        self.fusion = nn.Linear(width * len(encoders), classes)

    def features(self, batch: Batch) -> Features:
        """s_m and p_m for every modality m that some row has, with zeros in rows without m."""
        own, infiltration = {}, {}
        for m in self.modalities:
            if batch.holds(m):
                encoded = self.encode(batch, m)
                keep = batch.has(m).unsqueeze(1)
                own[m] = self.branches[m].get_submodule("self_projector")(encoded) * keep
                infiltration[m] = self.branches[m].get_submodule("infiltration_projector")(encoded) * keep
        return Features(own, infiltration)

    def classify(self, modality: Modality, projected: Tensor) -> Tensor:
        """u_m = C_m(.): logits [B, K] for projected features [B, D] of either projector."""
        logits: Tensor = self.branches[modality].get_submodule("classifier")(projected)
        return logits

    def fuse(self, batch: Batch, features: Features) -> Tensor:
        """u = F(concat_m slot_m): logits [B, K].

        If a row has the modality m, slot_m is s_m. Otherwise slot_m is the infiltration feature p of the row's most
        confident modality (1.4, 1.5, 1.7), or zeros (ablation).
        """
        filler = self._filler(batch, features)
        slots = []
        for m in self.modalities:
            present = batch.has(m).unsqueeze(1)
            slots.append(torch.where(present, features.own[m], filler) if m in features.own else filler)
        logits: Tensor = self.fusion(torch.cat(slots, dim=1))
        return logits

    def _filler(self, batch: Batch, features: Features) -> Tensor:
        """p [B, D] of each row's most confident modality."""
        held = sorted(features.own)
        if self.fill == "zero" or not held:
            return torch.zeros(len(batch), self.width, device=self.device)
        confidence = torch.stack(
            [
                self._confidence(self.classify(m, features.own[m]).detach()).masked_fill(~batch.has(m), -1.0)
                for m in held
            ]
        )
        chosen = torch.nn.functional.one_hot(confidence.argmax(0), len(held))
        stacked = torch.stack([features.infiltration[m] for m in held], dim=1)
        return (stacked * chosen.unsqueeze(2)).sum(1)

    def _confidence(self, logits: Tensor) -> Tensor:
        """The probability [B] of the most likely class. For multi-label, the mean over labels of the probability of the
        more likely side, max(p, 1 - p) = sigmoid(|u|)."""
        return logits.abs().sigmoid().mean(1) if self.task == "multi-label" else logits.softmax(1).amax(1)

    def predict(self, batch: Batch) -> Tensor:
        """Fused logits [B, K]."""
        return self.fuse(batch, self.features(batch))


class TwoProjector(ModelOptions):
    """Two projectors and a classifier per modality."""

    width: int | None = Field(None, ge=1, le=16_384)
    """Width D of the projected features. `null`: the width of the first encoder."""
    depth: int = Field(1, ge=1, le=64)
    """Number of linear layers per projector."""
    infiltration_projector: bool = True
    """Whether P_m is separate from S_m. `false`: P_m and S_m are the same projector (ablation)."""
    fill: Literal["infiltration", "zero"] = "infiltration"
    """Replacement for a missing modality in the fusion: `infiltration` features of another modality, or zeros
    (`zero`)."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> TwoProjectorModel:
        """A new model with random weights."""
        width = self.width or encoders[min(encoders)].width
        shared = not self.infiltration_projector
        return TwoProjectorModel(encoders, classes, width, self.depth, shared, self.fill)
