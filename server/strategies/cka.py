"""FedMVP's aggregation: a client's weight grows with the similarity of its model to the others on the probe set.

L. Che, J. Wang, X. Liu, F. Ma, "Leveraging Foundation Models for Multi-modal Federated Learning with Incomplete
Modality", 2024, https://arxiv.org/abs/2406.11048; section 2.6 of docs/methods.md.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from common.blocks import block_of
from common.config.experiment import Experiment
from common.errors import ConfigError, ShardError
from common.types import Update
from server.aggregation.block_mean import BlockMean
from server.aggregation.similarity import Importance, client_weights, linear_cka
from server.own_data.probe import ProbeSet
from server.strategies.base import StrategyOptions
from server.strategies.shared.collecting import CollectingStrategy


@final
class CKAStrategy(CollectingStrategy):
    """theta_b = sum_k w_k theta_k,b / sum_k w_k over the sampled clients that hold block b, w by `client_weights`.

    Departure: for a client without a block, the representation uses the block's received values.
    """

    def __init__(self, experiment: Experiment, probe: ProbeSet, options: "CKA") -> None:
        super().__init__(experiment)
        self.probe, self.options = probe, options

    def use(self, device: torch.device) -> None:
        """Compute the representations on a device."""
        self.probe.use(device)

    def combine(self, mean: BlockMean, updates: list[Update], received: Mapping[str, Tensor]) -> dict[str, Any]:
        """Represent the probe set with each update, and add each update with its weight. Returns the weights by site
        and the similarity matrix.

        Raises ShardError when the classes of the probe shard differ from the federation's.
        """
        if any(site.classes != self.probe.classes for site in self.sites.values()):
            raise ShardError(f"probe shard {self.probe.folder}: its classes differ from the federation's")
        every = self.options.representation == "all"
        seen = torch.stack([self.probe.represent({**received, **update.params}, every) for update in updates])
        similarity = linear_cka(seen)
        examples = [update.num_examples for update in updates]
        weights = client_weights(similarity, examples, self.options.importance).tolist()
        for update, weight in zip(updates, weights, strict=True):
            mean.add(update.params, {block_of(name): weight for name in update.params})
        sites = [update.site for update in updates]
        return {
            "weights": dict(zip(sites, weights, strict=True)),
            "similarity": {"sites": sites, "matrix": similarity.tolist()},
        }


class CKA(StrategyOptions):
    """A weighted mean; a client's weight is the similarity of its model to the others."""

    needs_probe: ClassVar[bool] = True

    importance: Importance = "degree"
    """How the similarities of a client give its weight."""
    representation: Literal["joint", "all"] = "joint"
    """The vectors that are compared: `joint` for the joint vector, `all` for the joint vector and the vector of each
    modality."""

    def build(self, experiment: Experiment, probe: Path | None) -> CKAStrategy:
        """The strategy for an experiment.

        Raises ConfigError without a probe shard, ShardError when the probe shard cannot be used.
        """
        if probe is None:
            raise ConfigError("strategy cka", ["it needs a probe shard at the server: make one with `fedmosaic probe`"])
        return CKAStrategy(experiment, ProbeSet(experiment, probe), self)
