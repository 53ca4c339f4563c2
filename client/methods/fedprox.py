"""FedProx: FedAvg with a proximal term.

T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, https://arxiv.org/abs/1812.06127.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.proximal import Anchor, anchor, proximal
from common.models.base import MultimodalModel
from common.types import Batch


class FedProx(Method[MultimodalModel, Anchor]):
    """Cross entropy of the fused prediction, plus a proximal term."""

    model: ClassVar[str] = "late-fusion"

    mu: float = Field(0.01, ge=0)
    """Weight mu of the proximal term."""

    def begin_round(self, model: MultimodalModel, examples: Batch, now: Round) -> Anchor:
        """The received parameters."""
        return anchor(model)

    def loss(self, model: MultimodalModel, batch: Batch, context: Anchor) -> Mapping[str, Tensor]:
        """CE(u, y) + (mu / 2) * ||w - w_g||^2."""
        return {
            "fused": F.cross_entropy(model.predict(batch), batch.labels),
            "proximal": proximal(model, context, self.mu),
        }
