"""FedAvg: plain local training.

H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
https://arxiv.org/abs/1602.05629.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method
from common.models.base import MultimodalModel
from common.types import Batch


class FedAvg(Method[MultimodalModel, None]):
    """Cross entropy of the fused prediction."""

    model: ClassVar[str] = "late-fusion"

    def loss(self, model: MultimodalModel, batch: Batch, context: None) -> Mapping[str, Tensor]:
        """CE(u, y)."""
        return {"fused": F.cross_entropy(model.predict(batch), batch.labels)}
