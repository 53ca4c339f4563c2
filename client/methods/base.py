"""The interface of methods. A method is the local objective of a client, with optional work once per round.

A complete minimal example:

    class Plain(Method[MultimodalModel, Criterion]):
        model: ClassVar[str] = "late-fusion"
        uses_criterion: ClassVar[bool] = True

        def begin_round(self, model, examples, now):
            return now.criterion

        def loss(self, model, batch, context):
            return {"fused": context(model.predict(batch), batch.labels)}

The terms that the training loop calls, in its order: `begin_round` once, then for every batch `loss` and
`after_backward`, then `end_round` once. Only `loss` is required.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar, cast

from torch import Tensor

from client.methods.shared.criterion import Criterion
from common.config.component import Component
from common.config.task import TaskName
from common.modality import Modality
from common.models.base import MultimodalModel
from common.types import Batch

M = TypeVar("M", bound=MultimodalModel)
C = TypeVar("C")


@dataclass(frozen=True)
class Round:
    """The facts of a round for a client.

    number: the number of the round, from 1. held: the modalities that the client has. batch_size: the batch size for
    passes over all examples. criterion: the loss of a prediction, with the experiment's label smoothing and class
    weights. rounds: the number of rounds of the experiment.
    """

    number: int
    held: frozenset[Modality]
    batch_size: int
    criterion: Criterion = field(default_factory=Criterion)
    rounds: int = 1


class Method(Component, Generic[M, C]):
    """A local objective. Its fields are its options in the config.

    model: the architecture that the method needs. strategy: the default strategy for the method; a config may choose
    another one. tasks: the tasks for which the method is defined. counts_labels: whether the update reveals how many
    examples of each class the client has. uses_criterion: whether the cross entropies of the labels are computed by
    `Round.criterion`. If not, an experiment with label smoothing or class weights is a mistake.
    """

    model: ClassVar[str]
    strategy: ClassVar[str] = "fedavg"
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label"})
    counts_labels: ClassVar[bool] = False
    uses_criterion: ClassVar[bool] = False

    def begin_round(self, model: M, examples: Batch, now: Round) -> C:
        """The context that the loss needs during the round, computed from the received model (in eval mode). By default
        None, for a method that needs no context."""
        return cast(C, None)

    @abstractmethod
    def loss(self, model: M, batch: Batch, context: C) -> Mapping[str, Tensor]:
        """The named and weighted terms of the loss. Each term is a scalar. "fused" is the loss of the prediction.
        Training minimises the sum of the terms and logs each term."""

    def after_backward(self, model: M, context: C) -> None:
        """Change the gradients before the optimiser's step. By default, nothing changes."""

    def end_round(self, model: M, examples: Batch, context: C) -> None:
        """Write further values that are sent into the trained model, e.g. prototypes. By default, nothing is
        written."""
