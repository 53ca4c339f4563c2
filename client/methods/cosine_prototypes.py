"""The prototype loss of MFedNI: the fused representation is classified by its cosines with class prototypes.

S. Yu, K. Zhu, F. Liang, J. Wang, K. Kant, L. Yin, "Robust Multimodal Federated Learning for Non-IID Multimodal Data
with Incompleteness", Future Generation Computer Systems 174, 2026. The equations are those of the authors' public code,
https://github.com/KaimingZhu/MFedNI.

Differences from the paper:

- The model is late fusion, whose fused representation is the concatenation of the features. The paper has a transformer
  for time series with a fusion by cross-modal attention.
- Prototypes are weighted by the number of examples of the class, not by that of all examples of the client.
- Classes without a prototype, and the examples of such classes, are left out of the loss.

The public code defines no prediction with some of the modalities: missing slots have zeros, as in training.
With frozen encoders the loss has no gradient.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.prototypes import ClassSums, members, write_sums
from common.data.batches import batches
from common.models.fused_prototypes import FusedPrototypesModel
from common.types import Batch


@dataclass(frozen=True)
class Context:
    """now: the round. prototypes: the received class means [K, R] of h, NaN for a class that no client has."""

    now: Round
    prototypes: Tensor


class CosinePrototypes(Method[FusedPrototypesModel, Context]):
    """Cross entropy of the fused prediction, plus that of the cosines with the prototypes of all clients."""

    model: ClassVar[str] = "fused-prototypes"
    counts_labels: ClassVar[bool] = True
    uses_criterion: ClassVar[bool] = True

    alpha: float = Field(0.01, ge=0)
    """Weight alpha of the cross entropy of the cosines."""

    def begin_round(self, model: FusedPrototypesModel, examples: Batch, now: Round) -> Context:
        """The received prototypes."""
        return Context(now, model.prototypes.means().clone())

    def loss(self, model: FusedPrototypesModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u, y) + alpha CE(cos(h, c_.), y), with h = concat_m z_m. There is no temperature."""
        features = model.features(batch)
        terms = {"fused": context.now.criterion(model.fuse(features), batch.labels)}
        known = ~context.prototypes.isnan().any(1)
        rows = known[batch.labels]
        if rows.any():
            fused = torch.cat([features[m] for m in model.modalities], dim=1)
            cosines = F.normalize(fused[rows]) @ F.normalize(context.prototypes.nan_to_num()).T
            logits = cosines.masked_fill(~known, -torch.inf)
            terms["prototypes"] = self.alpha * context.now.criterion.plain(logits, batch.labels[rows])
        return terms

    def end_round(self, model: FusedPrototypesModel, examples: Batch, context: Context) -> None:
        """Write the client's own prototypes, computed with the trained model, into the model."""
        write_sums(model.prototypes, _fused_sums(model, examples, context.now.batch_size), len(examples))


@torch.no_grad()
def _fused_sums(model: FusedPrototypesModel, examples: Batch, batch_size: int) -> ClassSums:
    """The sums [K, R] of h and the counts [K], computed with the model in eval mode."""
    model.eval()
    own = ClassSums(torch.zeros_like(model.prototypes.sums), torch.zeros_like(model.prototypes.shares))
    for batch in batches(examples, batch_size, model.device):
        member = members(batch.labels, len(own.counts))
        own.sums.add_(member.T @ model.represent(batch))
        own.counts.add_(member.sum(0))
    return own
