"""FedMVP's aggregation: a client's weight grows with the similarity of its model to the others on the probe set.

L. Che, J. Wang, X. Liu, F. Ma, "Leveraging Foundation Models for Multi-modal Federated Learning with Incomplete
Modality", 2024, https://arxiv.org/abs/2406.11048; sections 2.6 and 2.9 of docs/methods.md. The logits, the comparison
of changes, the score `median` and the sharpness are departures from the paper, and off by default. The bound on the
size of a change is that of Z. Sun, P. Kairouz, A. T. Suresh, H. B. McMahan, "Can You Really Backdoor Federated
Learning?", 2019, https://arxiv.org/abs/1911.07963, with the median norm as the bound.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from pydantic import Field
from torch import Tensor

from common.blocks import block_of
from common.config.experiment import Experiment
from common.errors import ConfigError, ShardError
from common.types import Update
from server.aggregation.block_mean import BlockMean
from server.aggregation.similarity import (
    Importance,
    change_similarity,
    client_scores,
    client_weights,
    linear_cka,
)
from server.own_data.probe import ProbeSet, Representation
from server.strategies.base import StrategyOptions
from server.strategies.shared.blockwise import Block, blocks
from server.strategies.shared.collecting import CollectingStrategy

log = logging.getLogger(__name__)


@final
class CKAStrategy(CollectingStrategy):
    """theta_b = sum_k w_k theta_k,b / sum_k w_k over the sampled clients that hold block b, w by `client_weights`.

    When changes are compared, theta_k,b = received_b + d_k,b min(1, median_j ||d_j,b|| / ||d_k,b||) with the change
    d_k,b of block b at client k.

    Departure: for a client without a block, the representation uses the block's received values.
    """

    def __init__(self, experiment: Experiment, probe: ProbeSet, options: "CKA") -> None:
        super().__init__(experiment)
        self.probe, self.options = probe, options

    def use(self, device: torch.device) -> None:
        """Compute the representations on a device."""
        self.probe.use(device)

    def combine(self, mean: BlockMean, updates: list[Update], received: Mapping[str, Tensor]) -> dict[str, Any]:
        """Represent the probe set with each update, and add each update with its weight. Returns the weights by site,
        the similarity matrix and the name of its measure.

        Raises ShardError when the classes of the probe shard differ from the federation's.
        """
        if any(site.classes != self.probe.classes for site in self.sites.values()):
            raise ShardError(f"probe shard {self.probe.folder}: its classes differ from the federation's")
        similarity = self._similarity(updates, received)
        scores = client_scores(similarity, [update.num_examples for update in updates], self.options.importance)
        if not scores.any():
            log.warning("cka: no site is similar to half of the others, so all sites have equal weights in this round")
        sites = [update.site for update in updates]
        weights = dict(zip(sites, client_weights(scores, self.options.sharpness).tolist(), strict=True))
        if self.options.compare == "change":
            for block in blocks(updates, received):
                add_bounded(mean, block, weights)
        else:
            for update in updates:
                mean.add(update.params, {block_of(name): weights[update.site] for name in update.params})
        measure = "CKA" if self.options.compare == "representation" else "cosine of changes"
        return {"weights": weights, "similarity": {"sites": sites, "matrix": similarity.tolist(), "measure": measure}}

    def _similarity(self, updates: list[Update], received: Mapping[str, Tensor]) -> Tensor:
        kind = self.options.representation
        seen = torch.stack([self.probe.represent({**received, **update.params}, kind) for update in updates])
        if self.options.compare == "representation":
            return linear_cka(seen)
        return change_similarity(seen.to(torch.float64) - self.probe.represent(received, kind).to(torch.float64))


def add_bounded(mean: BlockMean, block: Block, weights: Mapping[str, float]) -> None:
    """Add the holders of a block to the mean. A change with a larger L2 norm than the median norm of the holders'
    changes is scaled to it. For an even number of holders, the median is the lower one of the two norms in the middle.

    weights: by site.
    """
    squares = [change.reshape(len(change), -1).square().sum(1) for _, change in block.changes()]
    norms = torch.stack(squares).sum(0).sqrt()
    factors = torch.where(norms > norms.median(), norms.median() / norms, 1.0).tolist()
    for holder, factor in zip(block.holders, factors, strict=True):
        bounded = {name: torch.lerp(start.double(), holder.params[name].double(), factor)
                   for name, start in block.received.items()}  # fmt: skip
        mean.add(bounded, {block.name: weights[holder.site]})


class CKA(StrategyOptions):
    """A weighted mean; a client's weight is the similarity of its model to the others."""

    needs_probe: ClassVar[bool] = True

    importance: Importance = "degree"
    """How the similarities of a client give its weight. `median` resists a hostile minority."""
    representation: Representation = "joint"
    """The vectors that are compared: `joint` for the joint vector, `all` for the joint vector and the vector of each
    modality, `logits` for the logits. A head on frozen features needs `logits`, because its joint vector is the same at
    every client."""
    compare: Literal["representation", "change"] = "representation"
    """`representation` compares the vectors by CKA, as in the paper. `change` compares their differences to the vectors
    of the received model by the cosine. With `change`, an update with the opposite sign has similarity 0, and no update
    has a larger norm than the median norm."""
    sharpness: float = Field(1.0, gt=0, le=100)
    """The power of a client's score in its weight. 1: the weight is proportional to the score, as in the paper."""

    def build(self, experiment: Experiment, probe: Path | None) -> CKAStrategy:
        """The strategy for an experiment.

        Raises ConfigError without a probe shard, ShardError when the probe shard cannot be used.
        """
        if probe is None:
            raise ConfigError("strategy cka", ["it needs a probe shard at the server: make one with `fedmosaic probe`"])
        return CKAStrategy(experiment, ProbeSet(experiment, probe), self)
