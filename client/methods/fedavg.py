"""FedAvg: plain local training.

H. B. McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
https://arxiv.org/abs/1602.05629.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from common.config.task import TaskName
from common.models.base import MultimodalModel
from common.types import Batch


class FedAvg(Method[MultimodalModel, Criterion]):
    """Cross entropy of the fused prediction."""

    model: ClassVar[str] = "late-fusion"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    def begin_round(self, model: MultimodalModel, examples: Batch, now: Round) -> Criterion:
        """The round's criterion."""
        return now.criterion

    def loss(self, model: MultimodalModel, batch: Batch, context: Criterion) -> Mapping[str, Tensor]:
        """CE(u, y)."""
        return {"fused": context(model.predict(batch), batch.labels)}
