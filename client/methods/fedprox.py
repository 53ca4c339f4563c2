"""FedProx: FedAvg with a proximal term.

T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, https://arxiv.org/abs/1812.06127.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import Field
from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.proximal import Anchor, anchor, proximal
from common.config.task import TaskName
from common.models.base import MultimodalModel
from common.types import Batch


@dataclass(frozen=True)
class Context:
    """criterion: the round's criterion. received: the received parameters."""

    criterion: Criterion
    received: Anchor


class FedProx(Method[MultimodalModel, Context]):
    """Cross entropy of the fused prediction, plus a proximal term."""

    model: ClassVar[str] = "late-fusion"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    mu: float = Field(0.01, ge=0)
    """Weight mu of the proximal term."""

    def begin_round(self, model: MultimodalModel, examples: Batch, now: Round) -> Context:
        """The criterion and the received parameters."""
        return Context(now.criterion, anchor(model))

    def loss(self, model: MultimodalModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u, y) + (mu / 2) * ||w - w_g||^2."""
        return {
            "fused": context.criterion(model.predict(batch), batch.labels),
            "proximal": proximal(model, context.received, self.mu),
        }
