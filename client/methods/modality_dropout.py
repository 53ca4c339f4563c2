"""Modality dropout: training leaves out modalities at random, so that the prediction works without them.

N. Neverova, C. Wolf, G. Taylor, F. Nebout, "ModDrop: Adaptive Multi-modal Gesture Recognition", TPAMI 38(8), 2016,
https://arxiv.org/abs/1501.00102.

Differences from the paper:

- The last modality of an example is never left out, because an example without any input teaches only class shares.
- Each modality has the same rate, and there is no training of the modalities one by one beforehand.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from common.config.task import TaskName
from common.models.late_fusion import LateFusionModel
from common.types import Batch


class ModalityDropout(Method[LateFusionModel, Criterion]):
    """Cross entropy of the fused prediction, in which the features of some modalities are zeros."""

    model: ClassVar[str] = "late-fusion"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    rate: float = Field(0.5, ge=0, lt=1)
    """Probability p with which training leaves out each modality of an example. 0 is the method `fedavg`."""

    def begin_round(self, model: LateFusionModel, examples: Batch, now: Round) -> Criterion:
        """The round's criterion."""
        return now.criterion

    def loss(self, model: LateFusionModel, batch: Batch, context: Criterion) -> Mapping[str, Tensor]:
        """CE(F(concat_m k_m z_m), y), with k_m by `kept` in training mode and 1 otherwise. The features are not scaled
        by 1 / (1 - p), because a modality that is missing in a prediction has zeros, too."""
        features = model.features(batch)
        if model.training:
            present = torch.stack([batch.has(m) for m in model.modalities])
            keep = kept(present, torch.rand(present.shape, device=batch.device), self.rate)
            features = {m: features[m] * row.unsqueeze(1) for m, row in zip(model.modalities, keep, strict=True)}
        return {"fused": context(model.fuse(features), batch.labels)}


def kept(present: Tensor, draws: Tensor, rate: float) -> Tensor:
    """The modalities that stay [M, B] bool. present: those that exist [M, B] bool. draws: uniform in [0, 1), [M, B].

    A present modality stays if its draw is at least the rate, or if it has the largest draw of its example.
    """
    largest = draws.where(present, -1).amax(0)
    return present & (draws >= largest.clamp_max(rate))
