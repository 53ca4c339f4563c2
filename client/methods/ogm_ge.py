"""OGM-GE: on-the-fly gradient modulation with generalisation enhancement, applied at each client.

X. Peng, Y. Wei, A. Deng, D. Wang, D. Hu, "Balanced Multimodal Learning via On-the-fly Gradient Modulation", CVPR 2022,
https://arxiv.org/abs/2203.15332, equations 8 to 12.

Differences from the paper:

- With more than two modalities, each one is compared with the mean of the others. For two modalities this is the
  paper's ratio.
- The weight matrices and kernels of all encoder layers are modulated. The authors' ResNets have only convolutions.
- A modality that no row of the batch has is left out.
- For multi-label, the score of a modality is its mean probability of the truth over examples and labels.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import mean_confidence
from common.config.task import TaskName
from common.modality import Modality
from common.models.late_fusion import LateFusionModel
from common.types import Batch

Coefficients = dict[Modality, float]
"""k_m of a batch, by modality."""


@dataclass(frozen=True)
class Context:
    """criterion: the round's criterion. coefficients: those of the latest batch, which the loss fills in."""

    criterion: Criterion
    coefficients: Coefficients = field(default_factory=dict)


class OgmGe(Method[LateFusionModel, Context]):
    """Cross entropy of the fused prediction, with smaller gradients for the dominant modality."""

    model: ClassVar[str] = "late-fusion"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    alpha: float = Field(0.5, gt=0)
    """Strength alpha of the modulation."""
    enhance: bool = True
    """Whether Gaussian noise with the standard deviation of the gradient is added to the gradient."""

    def begin_round(self, model: LateFusionModel, examples: Batch, now: Round) -> Context:
        """The criterion, and no coefficients yet."""
        return Context(now.criterion)

    def loss(self, model: LateFusionModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u, y). The batch's coefficients are stored in the context for `after_backward`."""
        features = model.features(batch)
        shares = {m: share for m, share in model.shares(features).items() if batch.holds(m)}
        context.coefficients.clear()
        context.coefficients.update(coefficients(mean_confidence(shares, batch, context.criterion), self.alpha))
        return {"fused": context.criterion(model.fuse(features), batch.labels)}

    def after_backward(self, model: LateFusionModel, context: Context) -> None:
        """g <- k_m g + N(0, std(g)^2) for the weights of each modulated encoder."""
        for m, coefficient in context.coefficients.items():
            for weight in model.encoder(m).parameters():
                if weight.grad is None or weight.dim() < 2:
                    continue
                deviation = weight.grad.std()
                weight.grad.mul_(coefficient)
                if self.enhance:
                    weight.grad.addcmul_(torch.randn_like(weight.grad), deviation)


def coefficients(scores: Mapping[Modality, float], alpha: float) -> Coefficients:
    """k_m = 1 - tanh(alpha * rho_m) if rho_m > 1, else 1, with rho_m = score of m / mean score of the others.

    scores: mean confidence in the truth by modality. With fewer than two modalities there are no coefficients.
    """
    if len(scores) < 2:
        return {}
    total, others = sum(scores.values()), len(scores) - 1
    ratio = {m: score * others / max(total - score, 1e-12) for m, score in scores.items()}
    return {m: 1 - math.tanh(alpha * rho) if rho > 1 else 1.0 for m, rho in ratio.items()}
