"""The exchange of class prototypes of each modality with every round."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.prototypes import class_sums, write_sums
from common.modality import Modality
from common.models.prototype_fusion import PrototypeFusionModel
from common.types import Batch


@dataclass(frozen=True)
class Context:
    """now: the round. prototypes: the received class means [K, D] by modality, NaN for a class that no client has."""

    now: Round
    prototypes: Mapping[Modality, Tensor]


class PrototypeExchange(Method[PrototypeFusionModel, Context]):
    """The base class of methods whose loss uses the prototypes of all clients."""

    model: ClassVar[str] = "prototype-fusion"
    strategy: ClassVar[str] = (
        "fedcmi"  # this strategy averages the prototypes of a modality over the clients that hold it
    )
    counts_labels: ClassVar[bool] = True
    uses_criterion: ClassVar[bool] = True

    def begin_round(self, model: PrototypeFusionModel, examples: Batch, now: Round) -> Context:
        """The received prototypes."""
        return Context(now, {m: model.prototypes(m).means().clone() for m in sorted(now.held)})

    def end_round(self, model: PrototypeFusionModel, examples: Batch, context: Context) -> None:
        """Write the client's own prototypes, computed with the trained model, into the model. They are sent with the
        modality's block."""
        for m in context.prototypes:
            own = class_sums(model, examples, m, model.fusion.out_features, context.now.batch_size)
            write_sums(model.prototypes(m), own, len(examples))
