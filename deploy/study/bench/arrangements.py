"""Arrangements: the federations of one row of a benchmark."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from client.site import Opened, Site
from common.config.experiment import Experiment
from common.data.loader import Loaded
from common.encoders.base import Encoder
from common.modality import Modality
from common.types import Batch, Origin
from deploy.study.bench.suite import Arrangement


class PooledSite(Site):
    """One site with the examples of several sites, for centralised training as a reference."""

    def __init__(self, sites: Sequence[Site]) -> None:
        super().__init__(Path("pooled"), "pooled")
        self._sites = sites

    def open(self, experiment: Experiment) -> Opened:
        """The concatenated examples of all sites. Modalities that a site does not have are missing values."""
        opened = [site.open(experiment) for site in self._sites]
        model = opened[0].model
        loaded = [part.loaded for part in opened]
        examples = Batch(
            {m: torch.cat([_inputs(part, m, model.encoder(m)) for part in loaded]) for m in model.modalities},
            {m: torch.cat([_origin(part, m) for part in loaded]) for m in model.modalities},
            torch.cat([part.examples.labels for part in loaded]),
        )
        pooled = Loaded(examples, [name for part in loaded for name in part.ids], {}, 0)
        return Opened(opened[0].shard, model, pooled, opened[0].bases)


def _inputs(loaded: Loaded, modality: Modality, encoder: Encoder) -> Tensor:
    held = loaded.examples.inputs.get(modality)
    return torch.stack([encoder.blank()] * len(loaded.ids)) if held is None else held


def _origin(loaded: Loaded, modality: Modality) -> Tensor:
    held = loaded.examples.origin.get(modality)
    return torch.full((len(loaded.ids),), int(Origin.MISSING)) if held is None else held


def federations(arrangement: Arrangement, experiment: Experiment, sites: Sequence[Site]) -> list[list[Site]]:
    """The sites of each federation. There are several federations only if every client trains alone."""
    if arrangement == "centralised":
        return [[PooledSite(sites)]]
    if arrangement == "local":
        return [[site] for site in sites]
    wanted = set(experiment.modalities)
    return [[site for site in sites if wanted & set(site.shard().info.modalities)]]
