"""FedCMI gated: this project's variant of FedCMI, on late fusion with one head per modality.

There are three differences from FedCMI (Y. Fan et al., 2023, https://arxiv.org/abs/2401.00894). Their effect is in
docs/results.

- The teacher is the whole received model: the mean of its fused and unimodal logits. It teaches the fused prediction
  and every head. There is no dominant modality, no second projector and no temperature.
- The weight of an example is the teacher's probability of the example's true class, so a wrong teacher has little
  influence.
- The client's log class prior is added to the logits of all cross entropies, so that the model does not learn the
  client's class shares as a bias of every modality: A. K. Menon et al., "Long-tail Learning via Logit Adjustment", ICLR
  2021, https://arxiv.org/abs/2007.07314, equation 10; in federated learning J. Zhang et al., "Federated Learning with
  Label Distribution Skew via Logits Calibration", ICML 2022, https://arxiv.org/abs/2209.00189.

For multi-label, each label is a problem of two classes, with its own prior (log odds) and its own gate.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import by_row, unimodal_loss
from common.config.task import TaskName
from common.modality import Modality
from common.models.unimodal_heads import UnimodalHeadsModel
from common.types import Batch

SMOOTHING = 0.1
"""Added to the count of each class, so that a class without examples has a finite log prior."""


@dataclass(frozen=True)
class Context:
    """The values that the method keeps during a round.

    prior: [K], tau times `log_prior` of the client's labels. teacher: the received model, frozen and in eval mode;
    None without infiltration. criterion: the round's criterion.
    """

    prior: Tensor
    teacher: UnimodalHeadsModel | None
    criterion: Criterion


class FedCMIGated(Method[UnimodalHeadsModel, Context]):
    """FedAvg with heads and corrected class priors. The received model teaches where it is confident."""

    model: ClassVar[str] = "unimodal-heads"
    strategy: ClassVar[str] = "fedcmi"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    unimodal_weight: float = Field(2.0, ge=0)
    """Weight c1 of the sum of the heads' losses."""
    infiltration_weight: float = Field(1.0, ge=0)
    """Weight lambda of the infiltration loss. 0 switches infiltration off."""
    prior_weight: float = Field(0.5, ge=0)
    """Weight tau of the log class prior. For multi-label, the prior of a label is its log odds. 0 switches the
    correction off."""
    gate: bool = True
    """Whether the received model's confidence weights the examples. `false`: all examples have the same weight."""

    def begin_round(self, model: UnimodalHeadsModel, examples: Batch, now: Round) -> Context:
        """The prior and the teacher. As in FedCMI, there is no infiltration in the first round or at a client with one
        modality."""
        prior = self.prior_weight * log_prior(examples.labels, model.fusion.out_features).to(model.device)
        if now.number == 1 or len(now.held) < 2 or self.infiltration_weight == 0:
            return Context(prior, None, now.criterion)
        return Context(prior, copy.deepcopy(model).eval().requires_grad_(False), now.criterion)

    def loss(self, model: UnimodalHeadsModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u + prior, y) + c1 * sum_m CE(u_m + prior, y) + lambda * L_inf."""
        features = model.features(batch)
        fused = model.fuse(features)
        heads = {m: model.classify(m, features[m]) for m in model.modalities if batch.holds(m)}
        corrected = {m: logits + context.prior for m, logits in heads.items()}
        terms = {
            "fused": context.criterion(fused + context.prior, batch.labels),
            "unimodal": self.unimodal_weight * unimodal_loss(corrected, batch, context.criterion),
        }
        if context.teacher is not None:
            with torch.no_grad():
                taught = ensemble(context.teacher, batch)
            infiltrated = infiltration_loss(taught, fused, heads, batch, self.gate, context.criterion)
            terms["infiltration"] = self.infiltration_weight * infiltrated
        return terms


def log_prior(labels: Tensor, classes: int) -> Tensor:
    """The smoothed log class shares [K] of labels [N]; for multi-label [N, K], the smoothed log odds [K] of each label,
    log present - log absent."""
    if labels.dim() == 1:
        counts = torch.bincount(labels, minlength=classes) + SMOOTHING
        return (counts / counts.sum()).log()
    present, absent = labels.sum(0) + SMOOTHING, (1 - labels).sum(0) + SMOOTHING
    return (present / absent).log()


def ensemble(model: UnimodalHeadsModel, batch: Batch) -> Tensor:
    """Logits [B, K]: the mean over the heads of a row's modalities and, if the row has all modalities, the fused
    logits."""
    features = model.features(batch)
    present = torch.stack([batch.has(m) for m in model.modalities]).unsqueeze(2)
    heads = torch.stack([model.classify(m, features[m]) for m in model.modalities])
    complete = present.all(0)
    total = (heads * present).sum(0) + model.fuse(features) * complete
    mean: Tensor = total / (present.sum(0) + complete.long()).clamp_min(1)
    return mean


def infiltration_loss(
    taught: Tensor,
    fused: Tensor,
    heads: Mapping[Modality, Tensor],
    batch: Batch,
    gate: bool,
    criterion: Criterion,
) -> Tensor:
    """L_inf = (1/B) sum_i g_i * sum_s -sum_c t_i[c] log softmax(s_i)[c], with t = softmax(taught) and g_i = t_i[y_i],
    or 1 without gate.

    For multi-label, the mean over rows and labels of g_ik * sum_s BCE(t_ik, sigmoid(s_ik)), with t = sigmoid(taught)
    and g_ik the teacher's probability of the truth about label k.

    The students s of example i are the fused logits and the heads of the example's modalities.

    taught, fused, heads: logits [B, K].
    """
    weight = criterion.truth(taught, batch.labels) if gate else 1.0
    loss = criterion.distillation(taught, fused)
    for m, logits in heads.items():
        loss = loss + criterion.distillation(taught, logits) * by_row(batch.has(m), loss)
    return (weight * loss).mean()
