"""Focal loss: examples that the model already predicts well count less.

T.-Y. Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, https://arxiv.org/abs/1708.02002, equation 4.
"""

from collections.abc import Mapping
from typing import ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method
from common.models.base import MultimodalModel
from common.types import Batch


class Focal(Method[MultimodalModel, None]):
    """Focal loss of the fused prediction."""

    model: ClassVar[str] = "late-fusion"
    strategy: ClassVar[str] = "fedcmi"

    gamma: float = Field(2.0, ge=0)
    """With a larger value, examples that the model already predicts well count less. 0 is cross entropy."""

    def loss(self, model: MultimodalModel, batch: Batch, context: None) -> Mapping[str, Tensor]:
        """-(1 - p)^gamma log p, with p the probability of the true class; the mean over the batch."""
        surprise = F.cross_entropy(model.predict(batch), batch.labels, reduction="none")
        return {"fused": ((1 - (-surprise).exp()) ** self.gamma * surprise).mean()}
