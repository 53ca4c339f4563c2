"""What a method is: the local objective of a client, and what it prepares once a round.

A toy, complete:

    class Plain(Method):
        model: ClassVar[str] = "late-fusion"

        def loss(self, model, batch, context):
            return {"fused": F.cross_entropy(model.predict(batch), batch.labels)}
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from common.config.component import Component
from common.modality import Modality
from common.models.base import MultimodalModel
from common.types import Batch

M = TypeVar("M", bound=MultimodalModel)
C = TypeVar("C")


@dataclass(frozen=True)
class Round:
    """What a client knows when a round begins.

    number: from 1. held: the modalities that the client has. batch_size: for passes over the whole data.
    """

    number: int
    held: frozenset[Modality]
    batch_size: int


class Method(Component, Generic[M, C]):
    """A local objective; its fields are its options in the config.

    model: the architecture it needs. strategy: the aggregation it is meant for; a config may choose another.
    counts_labels: whether its update tells how many examples of each class the client has.
    """

    model: ClassVar[str]
    strategy: ClassVar[str] = "fedavg"
    counts_labels: ClassVar[bool] = False

    @abstractmethod
    def begin_round(self, model: M, examples: Batch, now: Round) -> C:
        """What the loss needs all through the round, from the model as it was received (in eval mode)."""

    @abstractmethod
    def loss(self, model: M, batch: Batch, context: C) -> Mapping[str, Tensor]:
        """Named, weighted terms, each a scalar: "fused" is the loss of the prediction. Their sum is minimised, each is
        logged."""

    def after_backward(self, model: M, context: C) -> None:
        """Change the gradients before the step. By default they stay."""

    def end_round(self, model: M, examples: Batch, context: C) -> None:
        """Write into the trained model what else travels, e.g. prototypes. By default nothing."""
