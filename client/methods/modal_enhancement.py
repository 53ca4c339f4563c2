"""The modal enhancement loss of BMSFed: the weaker modality is pulled towards the class prototypes of all clients.

Y. Fan, W. Xu, H. Wang, F. Huo, J. Chen, S. Guo, "Overcome Modal Bias in Multi-modal Federated Learning via Balanced
Modality Selection", ECCV 2024, https://arxiv.org/abs/2401.00403. The equations are those of the authors' public code.

Differences from the paper:

- Modalities and clients are not selected. This is the loss of the paper alone.
- Prototypes are weighted by the number of examples of the class, not by that of all examples of the client. There are
  none in round 1. The paper computes them before it, in an additional pass.
- With more than two modalities, all except the strongest are pulled. The paper has two.

With frozen encoders the loss has no gradient.
"""

from collections.abc import Mapping

from pydantic import Field
from torch import Tensor

from client.methods.pmr import prototype_logits
from client.methods.shared.losses import mean_confidence, total
from client.methods.shared.prototype_exchange import Context, PrototypeExchange
from common.models.prototype_fusion import PrototypeFusionModel
from common.types import Batch


class ModalEnhancement(PrototypeExchange):
    """Cross entropy of the fused prediction, plus that of the weaker modalities by their distances to prototypes."""

    alpha: float = Field(1.0, ge=0)
    """Weight alpha of the cross entropy of the weaker modalities."""

    def loss(self, model: PrototypeFusionModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u, y) + alpha sum_m CE(-||z_m - c_m,.||, y), over the rows that have m and whose class has a prototype.
        The sum is over all modalities of the batch except the one with the largest mean confidence in the truth by
        these distances, or over the only one."""
        features = model.features(batch)
        terms = {"fused": context.now.criterion(model.fuse(features), batch.labels)}
        known = {
            m: rows
            for m, means in context.prototypes.items()
            if len(rows := (batch.has(m) & ~means.isnan().any(1)[batch.labels]).nonzero()[:, 0])
        }
        logits = {m: prototype_logits(features[m], context.prototypes[m]) for m in known}
        scores = mean_confidence(logits, batch, context.now.criterion)
        strongest = max(scores, key=scores.__getitem__) if len(scores) > 1 else None
        weaker = [m for m in known if m != strongest]
        if weaker:
            losses = [context.now.criterion.plain(logits[m][known[m]], batch.labels[known[m]]) for m in weaker]
            terms["enhancement"] = self.alpha * total(losses, batch)
        return terms
