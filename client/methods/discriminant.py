"""Linear discriminant analysis over all sites: exact sums of frozen features in place of most of the training.

For one modality: Z. Guan, Y. Zhou, X. Gu, "Capture Global Feature Statistics for One-Shot Federated Learning", AAAI
2025, https://arxiv.org/abs/2503.06962; F. Turazza, M. Picone, M. Mamei, "The Gaussian-Head OFL Family", ICLR 2026,
https://arxiv.org/abs/2602.01186. Several modalities and missing ones are ours: `common.models.discriminant`.

Choices of this project:

- Sites send the sums with their updates. The sums after round r are the mean of those of the rounds 1 to r, so clients
  that are not sampled in a round still count, and each round counts the same.
- Round 1 trains nothing, because there are no discriminants yet. With one round of all clients, the method is one-shot
  and exact. More rounds weigh clients by how often they are sampled.
- Only observed values enter the sums and the prediction.
- With encoders that are trained, the sums follow their features with a delay.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.prototypes import members
from client.methods.shared.running_sums import ReceivedSums, received_sums, write_running_mean
from common.config.task import TaskName
from common.data.batches import batches
from common.modality import Modality
from common.models.discriminant import DiscriminantModel
from common.types import Batch, Origin


class Discriminant(Method[DiscriminantModel, ReceivedSums]):
    """Cross entropy of the discriminants' prediction, which trains a linear correction of it."""

    model: ClassVar[str] = "discriminant"
    strategy: ClassVar[str] = "fedcmi"  # this strategy averages the sums of a modality over the clients that hold it
    counts_labels: ClassVar[bool] = True
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    def begin_round(self, model: DiscriminantModel, examples: Batch, now: Round) -> ReceivedSums:
        """The received sums."""
        return received_sums(model, _names(sorted(now.held)), now)

    def loss(self, model: DiscriminantModel, batch: Batch, context: ReceivedSums) -> Mapping[str, Tensor]:
        """CE(u, y)."""
        return {"fused": context.now.criterion(model.predict(batch), batch.labels)}

    def after_backward(self, model: DiscriminantModel, context: ReceivedSums) -> None:
        """Drop the gradients of round 1."""
        if context.now.number == 1:
            model.zero_grad()

    def end_round(self, model: DiscriminantModel, examples: Batch, context: ReceivedSums) -> None:
        """Add the client's sums to the received ones."""
        own = _own_sums(model, examples, context.now.batch_size)
        write_running_mean(model, context, own)


def _names(held: list[Modality]) -> list[str]:
    """The names of the buffers of the sums."""
    kinds = ("sums", "shares", "products", "whole", "count")
    return ["class_shares", *(f"branches.{m}.moments.{kind}" for m in held for kind in kinds)]


@torch.no_grad()
def _own_sums(model: DiscriminantModel, examples: Batch, batch_size: int) -> dict[str, Tensor]:
    """The client's sums over its observed values, divided by its number of examples n_k, by name of the buffer."""
    model.eval()
    found = {name: torch.zeros_like(model.get_buffer(name)) for name in _names(examples.modalities)}
    for batch in batches(examples, batch_size, model.device):
        member = members(batch.labels, len(model.class_shares))
        found["class_shares"] += member.sum(0)
        for m in examples.modalities:
            rows = batch.index(m, origin=Origin.OBSERVED)
            features = F.normalize(model.encode(batch, m)[rows])
            belongs = member[rows].to(features.dtype)
            prefix = f"branches.{m}.moments."
            found[prefix + "sums"] += belongs.T @ features
            found[prefix + "shares"] += belongs.sum(0)
            found[prefix + "products"] += features.T @ features
            found[prefix + "whole"] += features.sum(0)
            found[prefix + "count"] += len(rows)
    return {name: value / len(examples) for name, value in found.items()}
