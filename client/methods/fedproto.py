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
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.methods.shared.prototype_exchange import Context, PrototypeExchange
from client.methods.shared.prototypes import members
from common.config.task import TaskName
from common.models.prototype_fusion import PrototypeFusionModel
from common.types import Batch


class FedProto(PrototypeExchange):
    """Cross entropy of the fused prediction, plus the distance of features to the prototypes of all clients."""

    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    prototype_weight: float = Field(1.0, ge=0)
    """Weight lambda of the distance to the prototypes."""

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
