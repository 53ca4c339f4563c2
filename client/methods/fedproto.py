"""FedProto: pulls features towards the class prototypes of all clients.

Y. Tan, G. Long, L. Liu, T. Zhou, Q. Lu, J. Jiang, C. Zhang, "FedProto: Federated Prototype Learning across
Heterogeneous Clients", AAAI 2022, https://arxiv.org/abs/2105.00243, equations 4 to 7.

Differences from the paper:

- Parameters are averaged too. The paper exchanges only prototypes and thus has no global model for a comparison.
- There is one set of prototypes per modality.
- Prototypes are weighted by the number of examples of the class, as in equation 6, but not divided by the number of
  clients.
- For multi-label, the prototype of a label is the mean over the examples that have it. The features of an example are
  pulled to the mean of the prototypes of its labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.prototypes import class_sums, members, write_sums
from common.config.task import TaskName
from common.modality import Modality
from common.models.prototype_fusion import PrototypeFusionModel
from common.types import Batch


@dataclass(frozen=True)
class Context:
    """now: the round. prototypes: the received class means [K, D] by modality, NaN for a class that no client has."""

    now: Round
    prototypes: Mapping[Modality, Tensor]


class FedProto(Method[PrototypeFusionModel, Context]):
    """Cross entropy of the fused prediction, plus the distance of features to the prototypes of all clients."""

    model: ClassVar[str] = "prototype-fusion"
    strategy: ClassVar[str] = (
        "fedcmi"  # this strategy averages the prototypes of a modality over the clients that hold it
    )
    counts_labels: ClassVar[bool] = True
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    prototype_weight: float = Field(1.0, ge=0)
    """Weight lambda of the distance to the prototypes."""

    def begin_round(self, model: PrototypeFusionModel, examples: Batch, now: Round) -> Context:
        """The received prototypes."""
        return Context(now, {m: model.prototypes(m).means().clone() for m in sorted(now.held)})

    def loss(self, model: PrototypeFusionModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u, y) + lambda * sum_m mean_i ||z_m,i - c_m,y_i||^2 / D, over the rows i with m and a known prototype. For
        multi-label, c_m,y_i is the mean of the known prototypes of the labels of i."""
        features = model.features(batch)
        terms = {"fused": context.now.criterion(model.fuse(features), batch.labels)}
        distances = []
        for m, means in context.prototypes.items():
            known = members(batch.labels, len(means)) * ~means.isnan().any(1)
            rows = batch.has(m) & known.any(1)
            if rows.any():
                wanted = known[rows] @ means.nan_to_num() / known[rows].sum(1, keepdim=True)
                distances.append(F.mse_loss(features[m][rows], wanted))
        if distances:
            terms["prototypes"] = self.prototype_weight * torch.stack(distances).sum()
        return terms

    def end_round(self, model: PrototypeFusionModel, examples: Batch, context: Context) -> None:
        """Write the client's own prototypes, computed with the trained model, into the model. They are sent with the
        modality's block."""
        for m in context.prototypes:
            own = class_sums(model, examples, m, model.fusion.out_features, context.now.batch_size)
            write_sums(model.prototypes(m), own, len(examples))
