"""FedMVP: contrasts the joint representation with each modality's, and aligns it with modalities that predict better.

L. Che, J. Wang, X. Liu, F. Ma, "Leveraging Foundation Models for Multi-modal Federated Learning with Incomplete
Modality", 2024, https://arxiv.org/abs/2406.11048; section 2.4 of docs/methods.md.

A choice where the paper leaves a detail open: the terms of a modality use only the rows that have it, observed or
generated, and B is the number of these rows. For multi-label and regression, CE is the loss of the task.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import total
from common.config.task import TaskName
from common.modality import Modality
from common.models.joint import Joined, JointModel
from common.types import Batch


class FedMVP(Method[JointModel, Criterion]):
    """Cross entropy of the joint prediction, a contrastive loss and an alignment loss."""

    model: ClassVar[str] = "joint"
    strategy: ClassVar[str] = "cka"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    contrastive_weight: float = Field(0.01, ge=0)
    """Weight a of the contrastive loss L_MCM. 0 switches the term off."""
    alignment_weight: float = Field(0.5, ge=0)
    """Weight b of the alignment loss L_RAM. 0 switches the term off."""
    temperature: float = Field(0.1, gt=0)
    """Temperature tau of the contrastive loss L_MCM."""

    def begin_round(self, model: JointModel, examples: Batch, now: Round) -> Criterion:
        """The round's criterion."""
        return now.criterion

    def loss(self, model: JointModel, batch: Batch, context: Criterion) -> Mapping[str, Tensor]:
        """L = CE(logits, y) + a * sum_m l_m + b * sum_m r_m, with l_m by `contrastive_loss` and r_m by
        `alignment_loss`. The terms of m are over the rows that have m."""
        joined = model.join(batch)
        held = [m for m in model.modalities if batch.holds(m)]
        terms = {"fused": context(joined.logits, batch.labels)}
        if self.contrastive_weight:
            terms["contrastive"] = self.contrastive_weight * total(
                [self._contrast(joined, batch, m) for m in held], batch
            )
        if self.alignment_weight:
            terms["alignment"] = self.alignment_weight * total(
                [_align(model, joined, batch, m, context) for m in held], batch
            )
        return terms

    def _contrast(self, joined: Joined, batch: Batch, modality: Modality) -> Tensor:
        rows = batch.index(modality)
        return contrastive_loss(joined.joint[rows], joined.single[modality][rows], self.temperature)


def _align(model: JointModel, joined: Joined, batch: Batch, modality: Modality, criterion: Criterion) -> Tensor:
    rows = batch.index(modality)
    single, labels = joined.single[modality][rows], batch.labels[rows]
    return alignment_loss(joined.joint[rows], single, joined.logits[rows], model.classify(single), labels, criterion)


def contrastive_loss(joint: Tensor, single: Tensor, temperature: float) -> Tensor:
    """l_m = -(1/2B) sum_i log s(Z_i, Z_p(i)) / sum_{k != i} s(Z_i, Z_k), with s(u, v) = exp(u . v / tau).

    joint, single: h_J, h_m [B, R], B >= 1. Each of the 2B rows of Z = [h_J ; h_m] is an anchor, p(i) is the other row
    of the same example, and k runs over all other rows (MCM, 2.4).
    """
    anchors = torch.cat([joint, single])
    similarity = anchors @ anchors.T / temperature
    itself = torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)
    matching = (joint * single).sum(1).repeat(2) / temperature
    return (similarity.masked_fill(itself, -torch.inf).logsumexp(1) - matching).mean()


def alignment_loss(
    joint: Tensor,
    single: Tensor,
    joint_logits: Tensor,
    single_logits: Tensor,
    labels: Tensor,
    criterion: Criterion,
) -> Tensor:
    """r_m = (1/B) * 1[CE(C(h_m), y) < CE(logits, y)] * ||H_J - H_m||_F.

    joint, single: H_J, H_m [B, R]; joint_logits, single_logits: [B, K]; labels: [B] or [B, K]; B >= 1. CE is the
    criterion without weights and smoothing. There is one gate for the whole batch. Gradients reach both representations
    (RAM, 2.4).
    """
    better = criterion.plain(single_logits, labels) < criterion.plain(joint_logits, labels)
    distance: Tensor = torch.linalg.vector_norm(joint - single)
    return better * distance / len(labels)
