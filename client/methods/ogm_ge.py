"""OGM-GE: on-the-fly gradient modulation with generalisation enhancement, applied at each client.

X. Peng, Y. Wei, A. Deng, D. Wang, D. Hu, "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR 2022,
https://arxiv.org/abs/2203.15332, equations 8 to 12.

Departures: with more than two modalities a modality is compared with the mean of the others, which for two is the
paper's ratio; the encoders' weight matrices and kernels of every kind are modulated, where the authors' ResNets have
convolutions only; a modality no row of the batch has is left out.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.losses import true_class_confidence
from common.modality import Modality
from common.models.late_fusion import LateFusionModel
from common.types import Batch

Coefficients = dict[Modality, float]
"""k_m of the batch that was last seen."""


class OgmGe(Method[LateFusionModel, Coefficients]):
    """Cross entropy of the fused prediction, with the gradients of the dominant modality damped."""

    model: ClassVar[str] = "late-fusion"

    alpha: float = Field(0.5, gt=0)
    """Strength of the modulation."""
    enhance: bool = True
    """Whether Gaussian noise of the gradient's own deviation is added."""

    def begin_round(self, model: LateFusionModel, examples: Batch, now: Round) -> Coefficients:
        """No coefficients yet."""
        return {}

    def loss(self, model: LateFusionModel, batch: Batch, context: Coefficients) -> Mapping[str, Tensor]:
        """CE(u, y); leaves the batch's coefficients in the context, for `after_backward`."""
        features = model.features(batch)
        scores = {
            m: float(true_class_confidence(share, batch.labels)[batch.has(m)].mean())
            for m, share in model.shares(features).items()
            if batch.has(m).any()
        }
        context.clear()
        context.update(coefficients(scores, self.alpha))
        return {"fused": F.cross_entropy(model.fuse(features), batch.labels)}

    def after_backward(self, model: LateFusionModel, context: Coefficients) -> None:
        """g <- k_m g + N(0, std(g)^2) for the weights of each modulated encoder."""
        for m, coefficient in context.items():
            for weight in model.encoder(m).parameters():
                if weight.grad is None or weight.dim() < 2:
                    continue
                deviation = float(weight.grad.std())
                weight.grad.mul_(coefficient)
                if self.enhance:
                    weight.grad.add_(torch.randn_like(weight.grad), alpha=deviation)


def coefficients(scores: Mapping[Modality, float], alpha: float) -> Coefficients:
    """k_m = 1 - tanh(alpha * rho_m) where rho_m > 1, else 1; rho_m = score of m / mean score of the others.

    scores: mean true-class confidence by modality. Nothing is modulated where fewer than two modalities are held.
    """
    if len(scores) < 2:
        return {}
    total, others = sum(scores.values()), len(scores) - 1
    ratio = {m: score * others / max(total - score, 1e-12) for m, score in scores.items()}
    return {m: 1 - float(torch.tanh(torch.tensor(alpha * rho))) if rho > 1 else 1.0 for m, rho in ratio.items()}
