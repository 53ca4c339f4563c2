"""Late fusion in which ridge regression predicts the features of a missing modality from those of the present ones.

    u     = F(concat_m sqrt(D_m) x_m)                     x_m = z_m / ||z_m|| where m is observed
    x_m   = mean over the observed k of  mu_m + R_mk (x_k - mu_k)            where m is not observed
    R_mk  = C_mk (S_k + r tr(S_k) / D_k I)^-1             covariances of the complete pairs of all clients

A. E. Hoerl, R. W. Kennard, "Ridge Regression: Biased Estimation for Nonorthogonal Problems", Technometrics 12(1), 1970,
https://doi.org/10.1080/00401706.1970.10488634. Unit vectors bound the sums, so the server recognises forged ones by
their size.
"""

from collections.abc import Mapping
from itertools import permutations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions
from common.models.late_fusion import LateFusionModel
from common.types import CPU, Batch, Origin


class Pair(nn.Module):
    """Sums over the examples with both modalities, of the unit vectors x_k of a source and x_m of a target.

    products [D_k, D_k]: x_k x_k^T, cross [D_m, D_k]: x_m x_k^T, source [D_k], target [D_m], count []. All are divided
    by the client's number of examples. At the start they say nothing about the target. weight [D_m, D_k], bias [D_m]:
    the regression, which is not sent.
    """

    products: Tensor
    cross: Tensor
    source: Tensor
    target: Tensor
    count: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, source: int, target: int) -> None:
        super().__init__()
        self.register_buffer("products", torch.eye(source) / source)
        self.register_buffer("cross", torch.zeros(target, source))
        self.register_buffer("source", torch.zeros(source))
        self.register_buffer("target", torch.zeros(target))
        self.register_buffer("count", torch.ones(()))
        self.register_buffer("weight", torch.zeros(target, source), persistent=False)
        self.register_buffer("bias", torch.zeros(target), persistent=False)

    def solve(self, ridge: float) -> None:
        """Compute the regression in float64 on the processor. Without any complete pair it is zero."""
        self.weight.zero_()
        self.bias.zero_()
        products, cross, source, target, count = (
            value.to(CPU, torch.float64) for value in (self.products, self.cross, self.source, self.target, self.count)
        )
        if not count > 0:
            return
        source, target = source / count, target / count
        covariance = products / count - source.outer(source)
        size = covariance.diagonal().mean().clamp_min(1e-12)
        covariance = covariance + ridge * size * torch.eye(len(source), dtype=torch.float64)
        weight = torch.linalg.solve(covariance, (cross / count - target.outer(source)).T).T
        self.weight.copy_(weight)
        self.bias.copy_(target - weight @ source)


class ImputedFusionModel(LateFusionModel):
    """Late fusion, in which regressions fill the missing slots."""

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int, ridge: float) -> None:
        super().__init__(encoders, classes)
        self.ridge = ridge
        self.pairs = nn.ModuleDict(
            {f"{m}-from-{k}": Pair(encoders[k].width, encoders[m].width) for k, m in permutations(self.modalities, 2)}
        )

    def pair(self, source: Modality, target: Modality) -> Pair:
        """The regression from one modality to another."""
        found = self.pairs[f"{target}-from-{source}"]
        assert isinstance(found, Pair)
        return found

    def refresh(self) -> None:
        """Compute the regressions from the sums."""
        for pair in self.pairs.values():
            assert isinstance(pair, Pair)
            pair.solve(self.ridge)

    def features(self, batch: Batch) -> dict[Modality, Tensor]:
        """sqrt(D_m) x_m [B, D_m] of every modality, observed or predicted. Zeros in rows without any observed value."""
        dtype = self.fusion.weight.dtype
        seen = {m: batch.has(m, Origin.OBSERVED).unsqueeze(1).to(dtype) for m in self.modalities}
        vectors = {m: F.normalize(self.encode(batch, m)) * seen[m] for m in self.modalities}
        filled = {}
        for m, own in vectors.items():
            guess = torch.zeros_like(own)
            for k in [k for k in self.modalities if k != m]:
                pair = self.pair(k, m)
                guess = guess + F.linear(vectors[k].detach(), pair.weight, pair.bias) * seen[k]
            known = torch.stack(list(seen.values())).sum(0) - seen[m]
            filled[m] = torch.where(seen[m] > 0, own, guess / known.clamp_min(1)) * own.shape[1] ** 0.5
        return filled


class ImputedFusion(ModelOptions):
    """Late fusion in which ridge regression predicts missing features."""

    ridge: float = Field(0.1, gt=0)
    """Regularisation r of the regressions, relative to the mean variance of the source's features."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> ImputedFusionModel:
        """A new model with random weights."""
        return ImputedFusionModel(encoders, classes, self.ridge)
