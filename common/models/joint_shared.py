"""A linear head that shares most of its weights between the modalities, with FedMVP's joint encoder on top of it.

    u_m = b + (S + D_m) z_m                                   the view of modality m alone
    u   = b + sum_m o_m (S + D_m) z_m  [+ s C(refine(h_J) + h_J)]     o_m: 1 where m is observed, 0 elsewhere

z_m are the features of the encoders, S [K, D] and b [K] belong to all modalities, D_m [K, D_m] to one. D_m is zero at
the start, and D is the largest width: a modality with fewer features uses the first columns of S. The part in brackets
is that of L. Che et al., 2024, https://arxiv.org/abs/2406.11048 (`common.models.joint`). Its classifier C is zero at
the start and its scale s is learned, so that training starts at the linear head.

Generated values reach the joint encoder, and never the sum: only observed values have o_m = 1.
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import MultimodalModel
from common.models.joint import Joined, Joint, JointModel
from common.types import Batch, Origin


class SharedHead(MultimodalModel):
    """The linear head. A model that has it calls `add_head` when its branches exist."""

    head: nn.Linear

    def add_head(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        """Add S and b, and D_m to each branch."""
        self.head = nn.Linear(max(encoder.width for encoder in encoders.values()), classes)
        for m in self.modalities:
            own = nn.Linear(encoders[m].width, classes, bias=False)
            nn.init.zeros_(own.weight)
            self.branches[m].add_module("own", own)

    def part(self, modality: Modality, features: Tensor) -> Tensor:
        """(S + D_m) z_m: logits [B, K] for features [B, D_m]."""
        own = self.branches[modality].get_submodule("own")
        assert isinstance(own, nn.Linear)
        return F.linear(features, self.head.weight[:, : own.in_features] + own.weight)

    def view(self, modality: Modality, features: Tensor) -> Tensor:
        """u_m: logits [B, K] for features [B, D_m]."""
        return self.part(modality, features) + self.head.bias

    def observed(self, features: Mapping[Modality, Tensor], batch: Batch) -> Tensor:
        """b + sum_m o_m (S + D_m) z_m: logits [B, K]. features: z_m [B, D_m] of the modalities that some row has."""
        logits = self.head.bias.expand(len(batch), -1)
        for m, values in features.items():
            logits = logits + self.part(m, values) * batch.has(m, Origin.OBSERVED).unsqueeze(1)
        return logits


class SharedHeadModel(SharedHead):
    """The linear head alone."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict({m: nn.ModuleDict({"encoder": encoders[m]}) for m in sorted(encoders)})
        self.add_head(encoders, classes)

    def join(self, batch: Batch) -> Joined:
        """The features and the prediction. There are no vectors."""
        features = {m: self.encode(batch, m) for m in self.modalities if batch.holds(m)}
        return Joined({}, self.head.weight.new_zeros(len(batch), 0), self.observed(features, batch), features)

    def represent(self, batch: Batch) -> Tensor:
        """The logits [B, K], because the features of frozen encoders are the same at every client."""
        return self.predict(batch)

    def predict(self, batch: Batch) -> Tensor:
        """u: logits [B, K]."""
        return self.join(batch).logits


class JointSharedModel(SharedHead, JointModel):
    """The linear head and the joint encoder."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int, options: "JointShared") -> None:
        super().__init__(encoders, classes, options)
        self.add_head(encoders, classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.scale = nn.Parameter(torch.tensor([options.scale]))

    def classify(self, h: Tensor) -> Tensor:
        """s C(h): logits [B, K] of vectors [B, R]."""
        return self.scale * super().classify(h)

    def join(self, batch: Batch) -> Joined:
        """All vectors of the batch and the prediction, in one pass."""
        joined = super().join(batch)
        logits = joined.logits + self.observed(joined.features, batch)
        return Joined(joined.single, joined.joint, logits, joined.features)


class JointShared(Joint):
    """A linear head with shared weights and the joint encoder on top of it."""

    joint: bool = True
    """Whether the joint encoder exists. `false`: the linear head alone, and the other options have no effect."""
    scale: float = Field(10.0, gt=0)
    """Initial value of the learned scale s of the joint encoder's logits."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> SharedHeadModel | JointSharedModel:  # type: ignore[override]
        """A new model with random weights."""
        return JointSharedModel(encoders, classes, self) if self.joint else SharedHeadModel(encoders, classes)
