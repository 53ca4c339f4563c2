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
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from client.methods.base import Method, Round
from client.methods.shared.prototypes import members
from client.methods.shared.running_sums import write_running_mean
from common.config.task import TaskName
from common.data.batches import batches
from common.modality import Modality
from common.models.discriminant import DiscriminantModel
from common.types import Batch, Origin

Sums = dict[str, Tensor]


@dataclass(frozen=True)
class Context:
    """now: the round. received: the sums that the server sent, by name of the buffer."""

    now: Round
    received: Mapping[str, Tensor]


class Discriminant(Method[DiscriminantModel, Context]):
    """Cross entropy of the discriminants' prediction, which trains a linear correction of it."""

    model: ClassVar[str] = "discriminant"
    strategy: ClassVar[str] = "fedcmi"  # this strategy averages the sums of a modality over the clients that hold it
    counts_labels: ClassVar[bool] = True
    uses_criterion: ClassVar[bool] = True
    tasks: ClassVar[frozenset[TaskName]] = frozenset({"single-label", "multi-label"})

    def begin_round(self, model: DiscriminantModel, examples: Batch, now: Round) -> Context:
        """The received sums."""
        return Context(now, {name: value.clone() for name, value in _buffers(model, sorted(now.held)).items()})

    def loss(self, model: DiscriminantModel, batch: Batch, context: Context) -> Mapping[str, Tensor]:
        """CE(u, y)."""
        return {"fused": context.now.criterion(model.predict(batch), batch.labels)}

    def after_backward(self, model: DiscriminantModel, context: Context) -> None:
        """Drop the gradients of round 1."""
        if context.now.number == 1:
            model.zero_grad()

    def end_round(self, model: DiscriminantModel, examples: Batch, context: Context) -> None:
        """Add the client's sums to the received ones."""
        own = _own_sums(model, examples, context.now.batch_size)
        write_running_mean(model, context.received, own, context.now.number)


def _buffers(model: DiscriminantModel, held: list[Modality]) -> Sums:
    """The buffers of the sums by name."""
    sums = {"class_shares": model.class_shares}
    for m in held:
        for name in ("sums", "shares", "products", "whole", "count"):
            sums[f"branches.{m}.moments.{name}"] = getattr(model.moments(m), name)
    return sums


@torch.no_grad()
def _own_sums(model: DiscriminantModel, examples: Batch, batch_size: int) -> Sums:
    """The client's sums over its observed values, divided by its number of examples n_k, by name of the buffer."""
    model.eval()
    found = {name: torch.zeros_like(value) for name, value in _buffers(model, examples.modalities).items()}
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
