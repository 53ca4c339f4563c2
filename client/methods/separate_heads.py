"""Separate classifiers of the modalities, whose log-probabilities are added for a prediction.

J. Kittler, M. Hatef, R. Duin, J. Matas, "On Combining Classifiers", TPAMI 20(3), 1998,
https://doi.org/10.1109/34.667881: the product rule, equation 8, without the factor for the class shares.
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from client.methods.base import Method, Round
from client.methods.shared.criterion import Criterion
from client.methods.shared.losses import unimodal_loss
from common.config.task import TaskName
from common.models.separate_heads import SeparateHeadsModel
from common.types import Batch


class SeparateHeads(Method[SeparateHeadsModel, Criterion]):
    """Cross entropy of each modality's own prediction. That of the joint prediction is computed, but not trained."""

    model: ClassVar[str] = "separate-heads"
    strategy: ClassVar[str] = "fedcmi"  # a classifier is the mean over the clients that hold its modality
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    def begin_round(self, model: SeparateHeadsModel, examples: Batch, now: Round) -> Criterion:
        """The round's criterion."""
        return now.criterion

    def loss(self, model: SeparateHeadsModel, batch: Batch, context: Criterion) -> Mapping[str, Tensor]:
        """sum_m CE(u_m, y), with the term of m over the rows that have m."""
        heads = model.heads(batch)
        return {
            "unimodal": unimodal_loss(heads, batch, context),
            "fused": context(model.join(heads, batch).detach(), batch.labels),
        }
