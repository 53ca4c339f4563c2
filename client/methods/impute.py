"""Imputation of missing features by ridge regression from exact sums over the complete pairs of all sites.

A baseline of this project for frozen encoders. Formulas: `common.models.imputed_fusion`. In round 1 missing features
are zeros. With encoders that are trained, the regressions follow the features with a delay.
"""

from collections.abc import Mapping
from itertools import permutations
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.running_sums import ReceivedSums, received_sums, write_running_mean
from common.config.task import TaskName
from common.data.batches import batches
from common.models.imputed_fusion import ImputedFusionModel
from common.types import Batch, Origin

SUMS = ("products", "cross", "source", "target", "count")


class Impute(Method[ImputedFusionModel, ReceivedSums]):
    """Cross entropy of the fused prediction on observed and predicted features."""

    model: ClassVar[str] = "imputed-fusion"
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label", "regression"})

    def begin_round(self, model: ImputedFusionModel, examples: Batch, now: Round) -> ReceivedSums:
        """The received sums."""
        return received_sums(model, _names(model), now)

    def loss(self, model: ImputedFusionModel, batch: Batch, context: ReceivedSums) -> Mapping[str, Tensor]:
        """CE(u, y)."""
        return {"fused": context.now.criterion(model.predict(batch), batch.labels)}

    def end_round(self, model: ImputedFusionModel, examples: Batch, context: ReceivedSums) -> None:
        """Add the client's sums to the received ones."""
        own = _own_sums(model, examples, context.now.batch_size)
        write_running_mean(model, context, own)


def _names(model: ImputedFusionModel) -> list[str]:
    """The names of the buffers of the sums."""
    return [f"pairs.{pair}.{name}" for pair in model.pairs for name in SUMS]


@torch.no_grad()
def _own_sums(model: ImputedFusionModel, examples: Batch, batch_size: int) -> dict[str, Tensor]:
    """The client's sums over its observed pairs, divided by its number of examples, by name of the buffer."""
    model.eval()
    found = {name: torch.zeros_like(model.get_buffer(name)) for name in _names(model)}
    for batch in batches(examples, batch_size, model.device):
        vectors = {m: F.normalize(model.encode(batch, m)) for m in model.modalities if batch.holds(m)}
        for k, m in permutations(vectors, 2):
            rows = batch.index(k, m, origin=Origin.OBSERVED)
            source, target, prefix = vectors[k][rows], vectors[m][rows], f"pairs.{m}-from-{k}."
            found[prefix + "products"] += source.T @ source
            found[prefix + "cross"] += target.T @ source
            found[prefix + "source"] += source.sum(0)
            found[prefix + "target"] += target.sum(0)
            found[prefix + "count"] += len(rows)
    return {name: value / len(examples) for name, value in found.items()}
