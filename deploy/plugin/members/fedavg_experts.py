"""FedAvg with a product of experts: the method that trains the model "experts"."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method
from common.models.base import MultimodalModel
from common.types import Batch


class FedAvgExperts(Method[MultimodalModel, None]):
    """Cross entropy of the product."""

    model: ClassVar[str] = "experts"
    strategy: ClassVar[str] = "fedcmi"

    def loss(self, model: MultimodalModel, batch: Batch, context: None) -> Mapping[str, Tensor]:
        """The mean over the batch."""
        return {"fused": F.cross_entropy(model.predict(batch), batch.labels)}
