"""FedMVP on top of a linear head with shared weights, which each modality also trains alone.

A variant of this project. The parts of FedMVP are those of L. Che, J. Wang, X. Liu, F. Ma, "Leveraging Foundation
Models for Multi-modal Federated Learning with Incomplete Modality", 2024, https://arxiv.org/abs/2406.11048. Section 4
of docs/methods.md.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.fedmvp import alignment_loss, contrastive_loss
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import total
from common.config.task import TaskName
from common.modality import Modality
from common.models.joint import Joined
from common.models.joint_shared import JointSharedModel, SharedHeadModel
from common.types import Batch, Origin

Shared = SharedHeadModel | JointSharedModel


class FedMVPShared(Method[Shared, Criterion]):
    """Cross entropy of the prediction and of each modality's view; with the joint encoder, FedMVP's losses too."""

    model: ClassVar[str] = "joint-shared"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    view_weight: float = Field(0.5, ge=0)
    """Weight v of the views of complete examples. 0 switches the term off."""
    generated_weight: float = Field(0.2, ge=0)
    """Weight g of the views of generated values. 0 switches the term off."""
    contrastive_weight: float = Field(0.01, ge=0)
    """Weight a of the contrastive loss L_MCM. 0 switches the term off."""
    alignment_weight: float = Field(0.0, ge=0)
    """Weight b of the alignment loss L_RAM. 0 switches the term off."""
    temperature: float = Field(0.1, gt=0)
    """Temperature tau of the contrastive loss L_MCM."""

    def begin_round(self, model: Shared, examples: Batch, now: Round) -> Criterion:
        """The round's criterion."""
        return now.criterion

    def loss(self, model: Shared, batch: Batch, context: Criterion) -> Mapping[str, Tensor]:
        """L = CE(u, y) + (v/B) sum_m sum_{i complete} CE(u_m,i, y_i) + (g/B) sum_m sum_{i: m generated} CE(u_m,i, y_i)
        + a sum_m l_m + b sum_m r_m, with l_m and r_m as in FedMVP. An example is complete if all modalities of the
        model are observed."""
        joined = model.join(batch)
        held = list(joined.features)
        terms = {"fused": context(joined.logits, batch.labels)}
        if self.view_weight:
            complete = batch.index(*model.modalities, origin=Origin.OBSERVED)
            terms["views"] = self.view_weight * _views(model, joined, batch, dict.fromkeys(held, complete), context)
        if self.generated_weight:
            made = {m: batch.index(m, origin=Origin.GENERATED) for m in held}
            terms["generated"] = self.generated_weight * _views(model, joined, batch, made, context)
        if isinstance(model, JointSharedModel):
            terms |= self._joint_terms(model, joined, batch, context)
        return terms

    def _joint_terms(
        self, model: JointSharedModel, joined: Joined, batch: Batch, criterion: Criterion
    ) -> dict[str, Tensor]:
        rows = {m: batch.index(m) for m in joined.features}
        terms = {}
        if self.contrastive_weight:
            losses = [contrastive_loss(joined.joint[i], joined.single[m][i], self.temperature) for m, i in rows.items()]
            terms["contrastive"] = self.contrastive_weight * total(losses, batch)
        if self.alignment_weight:
            losses = []
            for m, i in rows.items():
                single = joined.single[m][i]
                alone = model.view(m, joined.features[m][i]) + model.classify(single)
                losses.append(
                    alignment_loss(joined.joint[i], single, joined.logits[i], alone, batch.labels[i], criterion)
                )
            terms["alignment"] = self.alignment_weight * total(losses, batch)
        return terms


def _views(
    model: Shared, joined: Joined, batch: Batch, rows: Mapping[Modality, Tensor], criterion: Criterion
) -> Tensor:
    """(1/B) sum_m sum_{i in rows_m} CE(u_m,i, y_i). rows: the numbers [n] of rows by modality."""
    losses = []
    for m, chosen in rows.items():
        if len(chosen):
            logits = model.view(m, joined.features[m][chosen])
            losses.append(criterion(logits, batch.labels[chosen]) * (len(chosen) / len(batch)))
    return total(losses, batch)
