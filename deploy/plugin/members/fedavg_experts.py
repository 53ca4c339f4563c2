"""FedAvg with a product of experts: the method that trains the model "experts"."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from common.models.base import MultimodalModel
from common.types import Batch


class FedAvgExperts(Method[MultimodalModel, Criterion]):
    """Cross entropy of the product."""

    model: ClassVar[str] = "experts"
    strategy: ClassVar[str] = "fedcmi"
    uses_criterion: ClassVar[bool] = True

    def begin_round(self, model: MultimodalModel, examples: Batch, now: Round) -> Criterion:
        """The round's criterion."""
        return now.criterion

    def loss(self, model: MultimodalModel, batch: Batch, context: Criterion) -> Mapping[str, Tensor]:
        """CE(u, y), with the experiment's label smoothing and class weights."""
        return {"fused": context(model.predict(batch), batch.labels)}
