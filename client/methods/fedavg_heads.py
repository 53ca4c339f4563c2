"""FedAvg with unimodal heads: the fused loss plus a classifier loss per modality.

This baseline shows how much of a balancing method's gain comes from supervising each modality separately. The loss is
FedCMI's loss (docs/methods.md, 1.2) without infiltration and without proximal term.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import unimodal_loss
from common.config.task import TaskName
from common.models.unimodal_heads import UnimodalHeadsModel
from common.types import Batch


class FedAvgHeads(Method[UnimodalHeadsModel, Criterion]):
    """Cross entropy of the fused prediction and of one head per modality."""

    model: ClassVar[str] = "unimodal-heads"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    unimodal_weight: float = Field(2.0, ge=0)
    """Weight c1 of the sum of the heads' losses."""

    def begin_round(self, model: UnimodalHeadsModel, examples: Batch, now: Round) -> Criterion:
        """The round's criterion."""
        return now.criterion

    def loss(self, model: UnimodalHeadsModel, batch: Batch, context: Criterion) -> Mapping[str, Tensor]:
        """CE(u, y) + c1 * sum_m CE(u_m, y), with the term of m over the rows that have m."""
        features = model.features(batch)
        heads = {m: model.classify(m, features[m]) for m in model.modalities if batch.holds(m)}
        return {
            "fused": context(model.fuse(features), batch.labels),
            "unimodal": self.unimodal_weight * unimodal_loss(heads, batch, context),
        }
