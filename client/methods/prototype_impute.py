"""Imputation of missing features by class prototypes of all clients.

A baseline of this project: the mask of PmcmFL (`client.methods.pmcmfl`) without its contrast, with prototypes from all
examples that have the modality. Formulas, also those of a prediction: `common.models.prototype_fill`. In round 1
missing features are zeros. With encoders that are trained, the prototypes follow the features with a delay of one
round.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.prototypes import class_sums, write_sums
from common.models.prototype_fill import PrototypeFillModel
from common.types import Batch


class PrototypeImpute(Method[PrototypeFillModel, Round]):
    """Cross entropy of the fused prediction on observed features and prototypes."""

    model: ClassVar[str] = "prototype-fill"
    counts_labels: ClassVar[bool] = True
    uses_criterion: ClassVar[bool] = True

    def begin_round(self, model: PrototypeFillModel, examples: Batch, now: Round) -> Round:
        """The round."""
        return now

    def loss(self, model: PrototypeFillModel, batch: Batch, context: Round) -> Mapping[str, Tensor]:
        """CE(u, y), with the prototype of y in the missing slots of a row."""
        filled = model.fill(model.features(batch), batch)
        return {"fused": context.criterion(model.fuse(filled), batch.labels)}

    def end_round(self, model: PrototypeFillModel, examples: Batch, context: Round) -> None:
        """Write the client's own sums. Those of a modality that it does not hold are zeros."""
        for m in model.modalities:
            own = class_sums(model, examples, m, model.fusion.out_features, context.batch_size)
            write_sums(model.prototypes(m), own, len(examples))
