"""PMR: prototypical modal rebalance, applied at each client.

Y. Fan, W. Xu, H. Wang, J. Wang, S. Guo, "PMR: Prototypical Modal Rebalance for Multimodal Learning", CVPR 2023,
https://arxiv.org/abs/2211.07089.

Differences from the paper:

- The prototypes are the local class means at the start of a round, computed with the received model. The paper computes
  them again in each epoch. Classes without local examples have no prototype.
- The entropy term of the paper's early epochs is left out, as in the authors' code.
- With more than two modalities, each one is compared with the strongest.
- For multi-label, each label is a problem of two classes, present and absent, each with a prototype.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import mean_confidence
from client.methods.shared.prototypes import class_sums
from common.config.task import TaskName
from common.modality import Modality
from common.models.late_fusion import LateFusionModel
from common.types import Batch

Prototypes = Mapping[Modality, Tensor]
"""Class means [K, D] by modality, NaN for classes without examples. For multi-label [2K, D]: the means of the examples
with each label, then those of the examples without it."""


@dataclass(frozen=True)
class Context:
    """criterion: the round's criterion. prototypes: those of the client's modalities."""

    criterion: Criterion
    prototypes: Prototypes


class Pmr(Method[LateFusionModel, Context]):
    """Cross entropy of the fused prediction, plus the prototypical cross entropy of the weaker modalities."""

    model: ClassVar[str] = "late-fusion"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    alpha: float = Field(1.0, ge=0)
    """Weight alpha of the prototypical cross entropy."""

    def begin_round(self, model: LateFusionModel, examples: Batch, now: Round) -> Context:
        """The criterion, and the prototypes of the client's modalities; no prototypes at a client with one modality,
        which needs no balancing."""
        if len(now.held) < 2:
            return Context(now.criterion, {})
        classes = model.fusion.out_features
        if examples.labels.dim() == 2:
            classes, examples = 2 * classes, replace(examples, labels=sides(examples.labels))
        means = {m: class_sums(model, examples, m, classes, now.batch_size).means() for m in sorted(now.held)}
        return Context(now.criterion, means)

    def loss(self, model: LateFusionModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u, y) + alpha * sum_m beta_m CE(-d(z_m, prototypes_m), y), with beta_m = clip(s* / s_m - 1, 0, 1). s_m is
        the mean confidence computed from the prototypes of m, and s* is the largest s_m. For multi-label, the logit of
        label k is d(z, prototype of its absence) - d(z, prototype of its presence)."""
        features = model.features(batch)
        terms = {"fused": context.criterion(model.fuse(features), batch.labels)}
        logits = {m: prototype_logits(features[m], means) for m, means in context.prototypes.items() if batch.holds(m)}
        if batch.labels.dim() == 2:
            logits = {m: present_against_absent(both) for m, both in logits.items()}
        scores = mean_confidence(logits, batch, context.criterion)
        accelerated = []
        for m, score in scores.items():
            lag = min(max(scores.values()) / max(score, 1e-12) - 1, 1.0)
            if lag > 0:
                rows = batch.index(m)
                accelerated.append(lag * context.criterion.plain(logits[m][rows], batch.labels[rows]))
        if accelerated:
            terms["prototypes"] = self.alpha * torch.stack(accelerated).sum()
        return terms


def prototype_logits(features: Tensor, means: Tensor) -> Tensor:
    """Logits -||z - c_k|| [B, K] for features z [B, D] and prototypes c [K, D]; very small for a NaN prototype."""
    known = ~means.isnan().any(1)
    squares = (features.unsqueeze(1) - means.nan_to_num().unsqueeze(0)).square().sum(2)
    distance = (squares + 1e-12).sqrt()  # the root has no gradient at zero
    return -distance.masked_fill(~known, 1e9)


def sides(labels: Tensor) -> Tensor:
    """Labels [B, K] as the 2K classes of K problems of two classes: present, then absent [B, 2K]."""
    return torch.cat([labels, 1 - labels], dim=1)


def present_against_absent(logits: Tensor) -> Tensor:
    """The logits [B, K] of binary problems from those of their two sides [B, 2K]: softmax of two logits is the sigmoid
    of their difference."""
    present, absent = logits.chunk(2, dim=1)
    return present - absent
