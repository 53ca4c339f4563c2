"""Linear discriminant analysis of each modality's features, from sums that sites add up exactly.

    u   = log pi + sum_m o_m [A_m x_m + a_m] + b + sum_m o_m B_m z_m          x_m = z_m / ||z_m||
    A_m = M_m S_m^-1,  a_m,c = -1/2 A_m,c (mu_m,c + mu_m)                     M_m: rows mu_m,c - mu_m

R. A. Fisher, "The Use of Multiple Measurements in Taxonomic Problems", Annals of Eugenics 7(2), 1936,
https://doi.org/10.1111/j.1469-1809.1936.tb02137.x; T. Hastie, R. Tibshirani, J. Friedman, "The Elements of Statistical
Learning", 2009, section 4.3. z_m: features, o_m: 1 where m is observed, else 0; mu_m,c: the mean of class c, mu_m: the
mean of all, S_m: the covariance within classes. Given the class, the modalities are independent, so the evidence of the
observed ones is added and the class shares pi count once. B_m and b are trained and zero at the start. Unit vectors
bound the sums, so the server recognises forged ones by their size.

For multi-label, label k is a problem of two classes, present and absent, with the means mu_m,k and nu_m,k, d = mu - nu,
the share p_m,k of present labels, and S_m,k = T_m - p (1 - p) d d^T, with the covariance T_m of all examples. As for
S_m, a share g of the covariance is replaced by a multiple of the identity (`shrunk`), here by that of T_m:

    u_k = log odds_k + sum_m o_m S_m,k^-1 d . (x_m - (mu + nu) / 2) + b_k + sum_m o_m B_m,k z_m
"""

from collections.abc import Mapping

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.config.task import TaskName
from common.encoders.base import Encoder
from common.modality import Modality
from common.models.base import ModelOptions, MultimodalModel
from common.types import CPU, Batch, Origin


class Moments(nn.Module):
    """Sums of one modality's unit vectors x in a form that the server's block-wise means aggregate exactly.

    sums [K, D], shares [K]: sums and counts by class, products [D, D]: sum of x x^T, whole [D], count []: sum and count
    of all. All are divided by the client's number of examples. At the start they are those of vectors in all directions
    that say nothing about the class. weight [K, D], bias [K]: A and a, which are not sent.
    """

    sums: Tensor
    shares: Tensor
    products: Tensor
    whole: Tensor
    count: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(classes, width))
        self.register_buffer("shares", torch.full((classes,), 1 / classes))
        self.register_buffer("products", torch.eye(width) / width)
        self.register_buffer("whole", torch.zeros(width))
        self.register_buffer("count", torch.ones(()))
        self.register_buffer("weight", torch.zeros(classes, width), persistent=False)
        self.register_buffer("bias", torch.zeros(classes), persistent=False)

    def solve(self, task: TaskName, shrinkage: float) -> None:
        """Compute A and a in float64 on the processor. Without any example they are zero."""
        self.weight.zero_()
        self.bias.zero_()
        sums, shares, products, whole, count = (
            value.to(CPU, torch.float64) for value in (self.sums, self.shares, self.products, self.whole, self.count)
        )
        if not count > 0:
            return
        solve = two_sided if task == "multi-label" else within_classes
        weight, bias = solve(sums / count, shares / count, products / count, whole / count, shrinkage)
        self.weight.copy_(weight)
        self.bias.copy_(bias)


def within_classes(
    sums: Tensor, shares: Tensor, products: Tensor, mean: Tensor, shrinkage: float
) -> tuple[Tensor, Tensor]:
    """A [K, D] and a [K] for classes, from sums and shares by class, the mean product z z^T and the mean of z. A class
    without examples has the mean of all, and so no evidence for or against it."""
    centred = torch.where(shares[:, None] > 0, sums / shares[:, None].clamp_min(1e-12) - mean, 0.0)
    covariance = products - mean.outer(mean) - (centred * shares[:, None]).T @ centred
    weight = torch.linalg.solve(shrunk(covariance, shrinkage), centred.T).T
    return weight, -(weight * (mean + centred / 2)).sum(1)


def two_sided(sums: Tensor, shares: Tensor, products: Tensor, mean: Tensor, shrinkage: float) -> tuple[Tensor, Tensor]:
    """A [K, D] and a [K] for labels, each of which is present or absent. A label that all or no examples have has no
    evidence."""
    both = (shares > 0) & (shares < 1)
    share = torch.where(both, shares, 0.5)[:, None]
    present, absent = sums / share, (mean - sums) / (1 - share)
    apart = torch.where(both[:, None], present - absent, 0.0)
    covariance = shrunk(products - mean.outer(mean), shrinkage)
    weight = torch.linalg.solve(covariance, apart.T).T
    spread = 1 - share[:, 0] * (1 - share[:, 0]) * (1 - shrinkage) * (weight * apart).sum(1)
    weight = weight / spread[:, None]  # Sherman and Morrison: S^-1 d from T^-1 d
    return weight, -(weight * (present + absent) / 2).sum(1)


def shrunk(covariance: Tensor, shrinkage: float) -> Tensor:
    """(1 - g) S + g tr(S) / D I, with g the shrinkage. J. H. Friedman, "Regularized Discriminant Analysis", JASA
    84(405), 1989, equation 18."""
    size = covariance.diagonal().mean().clamp_min(1e-12)
    return (1 - shrinkage) * covariance + shrinkage * size * torch.eye(len(covariance), dtype=covariance.dtype)


class DiscriminantModel(MultimodalModel):
    """The sum of log pi, the discriminants of the observed modalities, and a trained linear head."""

    class_shares: Tensor

    def __init__(self, encoders: Mapping[Modality, Encoder], classes: int, shrinkage: float) -> None:
        super().__init__()
        self.shrinkage = shrinkage
        self.branches = nn.ModuleDict({m: nn.ModuleDict({"encoder": encoders[m]}) for m in sorted(encoders)})
        for m in self.modalities:
            head = nn.Linear(encoders[m].width, classes, bias=False)
            nn.init.zeros_(head.weight)
            self.branches[m].add_module("head", head)
            self.branches[m].add_module("moments", Moments(classes, encoders[m].width))
        self.register_buffer("class_shares", torch.full((classes,), 1 / classes))
        self.bias = nn.Parameter(torch.zeros(classes))

    def moments(self, modality: Modality) -> Moments:
        """The moments of a modality."""
        found = self.branches[modality].get_submodule("moments")
        assert isinstance(found, Moments)
        return found

    def refresh(self) -> None:
        """Compute the discriminants from the moments."""
        for m in self.modalities:
            self.moments(m).solve(self.task, self.shrinkage)

    def prior(self) -> Tensor:
        """log pi, for multi-label the log odds: [K] from the shares of the classes, which are mixed with a hundredth of
        equal shares, so that no class is impossible."""
        if self.task == "multi-label":
            mixed = 0.99 * self.class_shares + 0.005
            return mixed.log() - (1 - mixed).log()
        shares = self.class_shares / self.class_shares.sum().clamp_min(1e-12)
        return (0.99 * shares + 0.01 / len(shares)).log()

    def predict(self, batch: Batch) -> Tensor:
        """u: logits [B, K]."""
        logits = (self.prior() + self.bias).expand(len(batch), -1)
        for m in self.modalities:
            if batch.holds(m):
                observed = batch.has(m, Origin.OBSERVED).unsqueeze(1)
                logits = logits + self._evidence(m, self.encode(batch, m)) * observed
        return logits

    def _evidence(self, modality: Modality, features: Tensor) -> Tensor:
        moments, head = self.moments(modality), self.branches[modality].get_submodule("head")
        assert isinstance(head, nn.Linear)
        trained: Tensor = head(features)
        with torch.autocast(features.device.type, enabled=False):  # the weights are too large for float16
            vectors = F.normalize(features.to(moments.weight.dtype))
            return F.linear(vectors, moments.weight, moments.bias) + trained

    def represent(self, batch: Batch) -> Tensor:
        """The logits [B, K], because the features of frozen encoders are the same at every client."""
        return self.predict(batch)


class Discriminant(ModelOptions):
    """Linear discriminants of the modalities, from sums over all sites."""

    shrinkage: float = Field(0.3, gt=0, le=1)
    """Share of a multiple of the identity in each covariance. Needed above all where there are fewer examples than
    features."""

    def build(self, encoders: Mapping[Modality, Encoder], classes: int) -> DiscriminantModel:
        """A new model with a head of zeros."""
        return DiscriminantModel(encoders, classes, self.shrinkage)
