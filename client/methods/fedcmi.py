"""FedCMI: balances modalities by infiltration from the globally learned dominant modality.

Y. Fan, W. Xu, H. Wang, J. Zhu, S. Guo, "Balanced Multi-modal Federated Learning via Cross-Modal Infiltration", 2023,
https://arxiv.org/abs/2401.00894. Section numbers are those of docs/methods.md.

Choices where the paper leaves details open:

- With more than two modalities, the most confident one teaches all others. Each pair has its own temperatures (1.5).
- If some examples lack a modality, confidences are means over the examples that have it. For complete batches, this
  gives the same order of the modalities as the paper's sums.
- A multi-label problem is K problems of two classes. Confidences are means over the labels, and the temperature of a
  label is that of the examples that have the label (1.9).
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import by_row, mean_confidence, total, unimodal_loss
from client.methods.shared.proximal import Anchor, anchor, proximal
from common.config.task import TaskName
from common.data.batches import batches
from common.modality import Modality
from common.models.two_projector import Features, TwoProjectorModel
from common.types import Batch

TINY = 1e-12
"""The smallest confidence in a ratio. Smaller confidences are raised to it."""


@dataclass(frozen=True)
class Context:
    """The values that FedCMI keeps during a round.

    held: the client's modalities. received: the received parameters. teacher: the received global model, frozen and in
    eval mode; None without infiltration. temperatures: [K] for every ordered pair (dominant, weak). criterion: the
    round's criterion.
    """

    held: frozenset[Modality]
    received: Anchor
    teacher: TwoProjectorModel | None
    temperatures: Mapping[tuple[Modality, Modality], Tensor]
    criterion: Criterion


class FedCMI(Method[TwoProjectorModel, Context]):
    """Cross entropy of the fused and the unimodal predictions, with infiltration from the dominant modality."""

    model: ClassVar[str] = "two-projector"
    strategy: ClassVar[str] = "fedcmi"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    unimodal_weight: float = Field(2.0, ge=0)
    """Weight c1 of the sum of the unimodal losses."""
    infiltration_weight: float = Field(1.0, ge=0)
    """Weight lambda of the infiltration loss. 0 switches infiltration off."""
    mu: float = Field(0.01, ge=0)
    """Weight mu of the proximal term."""
    kappa: float = Field(2.0, ge=0)
    """Strength kappa of the class-wise temperatures."""
    temperature: bool = True
    """Whether each class has its own temperature. `false`: T = 1 for every class (ablation)."""
    teacher: Literal["global", "local"] = "global"
    """The teacher of the infiltration: the received model (`global`) or the model in training (`local`, ablation)."""

    def begin_round(self, model: TwoProjectorModel, examples: Batch, now: Round) -> Context:
        """The teacher and the temperatures. There is no infiltration in the first round, because the received model is
        not trained yet, and none at a client with one modality (1.2, 1.4)."""
        received = anchor(model)
        if now.number == 1 or len(now.held) < 2 or self.infiltration_weight == 0:
            return Context(now.held, received, None, {}, now.criterion)
        pairs = [(d, w) for d in sorted(now.held) for w in sorted(now.held) if d != w]
        temperatures = {pair: torch.ones(model.fusion.out_features, device=model.device) for pair in pairs}
        if self.temperature:
            given = truth_probabilities(model, examples, now)
            temperatures = {
                (d, w): class_temperatures(
                    given[d], given[w], examples.labels, model.fusion.out_features, self.kappa
                ).to(model.device)
                for d, w in pairs
            }
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        return Context(now.held, received, teacher, temperatures, now.criterion)

    def loss(self, model: TwoProjectorModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """L = CE(u, y) + c1 sum_m CE(u_m^S, y) + lambda L_inf + (mu / 2) ||w - w_g||^2. At a client with one modality,
        only CE(u, y) and the proximal term."""
        features = model.features(batch)
        terms = {"fused": context.criterion(model.fuse(batch, features), batch.labels)}
        if len(context.held) > 1:
            own = {m: model.classify(m, s) for m, s in features.own.items()}
            terms["unimodal"] = self.unimodal_weight * unimodal_loss(own, batch, context.criterion)
            if context.teacher is not None:
                teacher = context.teacher if self.teacher == "global" else model
                infiltrated = infiltration(model, teacher, features, own, batch, context)
                terms["infiltration"] = self.infiltration_weight * infiltrated
        if self.mu > 0:
            terms["proximal"] = proximal(model, context.received, self.mu)
        return terms


def dominant_modality(own: Mapping[Modality, Tensor], batch: Batch, criterion: Criterion) -> Modality:
    """d = argmax_m conf_m, with conf_m the mean of softmax(u_m^S(x_i))[y_i] over the rows that have m (1.2). For
    multi-label, the mean probability of the truth over rows and labels."""
    confidence = mean_confidence(own, batch, criterion)
    return max(sorted(confidence), key=confidence.__getitem__)


def infiltration(
    model: TwoProjectorModel,
    teacher: TwoProjectorModel,
    features: Features,
    own: Mapping[Modality, Tensor],
    batch: Batch,
    context: Context,
) -> Tensor:
    """L_inf summed over the weak modalities; 0 if no row has both the dominant modality and a weak one.

    The teacher's self-projector of the dominant modality teaches the infiltration projector of each weak one.
    """
    if len(own) < 2:
        return total([], batch)
    d = dominant_modality(own, batch, context.criterion)
    with torch.no_grad():
        taught = teacher.classify(d, teacher.features(batch.only([d])).own[d])
    losses = []
    for w in sorted(own.keys() - {d}):
        both = batch.index(d, w)
        if len(both):
            student = model.classify(w, features.infiltration[w][both])
            labels, temperature = batch.labels[both], context.temperatures[d, w]
            losses.append(infiltration_loss(taught[both], student, labels, temperature, context.criterion))
    return total(losses, batch)


def infiltration_loss(
    taught: Tensor, student: Tensor, labels: Tensor, temperature: Tensor, criterion: Criterion
) -> Tensor:
    """L_inf = -(1/B) sum_i sum_c t_i[c] log q_i[c], t_i = softmax(taught_i / T_yi), q_i = softmax(student_i / T_yi).

    For multi-label, the mean over rows and labels of the binary cross entropy of t_ik = sigmoid(taught_ik / T_ik) and
    q_ik = sigmoid(student_ik / T_ik), with T_ik = T_k if example i has label k, else 1.

    taught, student: logits [B, K]; labels: [B] or [B, K]; temperature: [K]. No T^2 factor (1.2).
    """
    applied = temperature[labels].unsqueeze(1) if labels.dim() == 1 else torch.where(labels > 0.5, temperature, 1.0)
    return criterion.distillation(taught / applied, student / applied).mean()


@torch.no_grad()
def truth_probabilities(model: TwoProjectorModel, examples: Batch, now: Round) -> dict[Modality, Tensor]:
    """softmax(u_m^S)[y] of every example [N], for each of the client's modalities, with NaN for examples without the
    modality, on the processor. For multi-label, the probability of the truth about each label [N, K]. The model is in
    eval mode."""
    model.eval()
    parts: dict[Modality, list[Tensor]] = {m: [] for m in sorted(now.held)}
    for batch in batches(examples, now.batch_size, model.device):
        features = model.features(batch)
        for m, collected in parts.items():
            given = torch.full_like(batch.labels, math.nan, dtype=torch.float32)
            if m in features.own:
                probability = now.criterion.truth(model.classify(m, features.own[m]), batch.labels)
                given = torch.where(by_row(batch.has(m), given), probability, given)
            collected.append(given.cpu())
    return {m: torch.cat(collected) for m, collected in parts.items()}


def class_temperatures(dominant: Tensor, weak: Tensor, labels: Tensor, classes: int, kappa: float) -> Tensor:
    """Class-wise temperatures [K] of one pair of modalities (1.3).

    dominant, weak: probabilities of the truth [N] or [N, K], NaN for missing values. A_c and V_c are their means over
    the examples of class c or, for multi-label, over the examples that have label c. For the classes with examples,
    r_c = A_c / V_c and rbar = mean r_c.
    T_c = 1 / (1 + kappa ln(r_c / rbar)) if r_c > rbar, else 1. If rbar < 1, the roles are swapped: 1 / r_c and 1 / rbar
    are used. Classes without examples have T_c = 1.
    """
    mean_d, mean_w = (
        torch.stack([_of_class(given, labels, c).nanmean() for c in range(classes)]) for given in (dominant, weak)
    )
    temperatures = torch.ones(classes)
    index = (~(mean_d + mean_w).isnan()).nonzero()[:, 0]
    if not len(index):
        return temperatures
    ratio = mean_d[index].clamp_min(TINY) / mean_w[index].clamp_min(TINY)
    mean_ratio = ratio.mean()
    if mean_ratio < 1:
        ratio, mean_ratio = 1 / ratio, 1 / mean_ratio
    above = ratio > mean_ratio
    temperatures[index[above]] = 1 / (1 + kappa * torch.log(ratio[above] / mean_ratio))
    return temperatures


def _of_class(values: Tensor, labels: Tensor, c: int) -> Tensor:
    """The values [n] of the examples of a class, from values [N]; for multi-label, those of the label from [N, K]."""
    return values[labels == c] if labels.dim() == 1 else values[labels[:, c] > 0.5, c]
