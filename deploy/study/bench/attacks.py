"""Hostile sites, against which a suite compares strategies."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, assert_never

import torch
from flwr.app import Message
from pydantic import Field

from client.request import Request
from client.site import Opened, Site, Trained
from common.config.component import Options
from common.config.experiment import Experiment
from common.errors import ConfigError
from common.seeding import torch_rng
from common.types import Batch

Attack = Literal["shuffled-labels", "random-weights", "sign-flip", "absent"]
"""shuffled-labels: the site trains with a permutation of its labels. random-weights: the site returns standard normal
values instead of its trained parameters. sign-flip: the site returns the opposite of its change. absent: the site does
not take part, which is the result of a strategy that leaves out hostile sites and no others."""


class Hostile(Options):
    """The hostile sites of a setting."""

    sites: int = Field(ge=1)
    """The number of hostile sites, which are the first sites."""
    attack: Attack
    """How they misbehave: `shuffled-labels`, `random-weights`, `sign-flip`, or `absent`."""


class HostileSite(Site):
    """A site that misbehaves in every round. Its validation is honest, so that the figures on validation examples have
    the same meaning as without hostile sites."""

    def __init__(self, site: Site, attack: Attack) -> None:
        super().__init__(site.folder)
        self._site, self._attack = site, attack

    def open(self, experiment: Experiment) -> Opened:
        """The prepared examples of the site."""
        return self._site.open(experiment)

    def train_round(self, request: Request, message: Message) -> tuple[dict[str, Any], Trained]:
        """One round, with another update than the trained one.

        Raises the errors of `Site.train_round`.
        """
        said, trained = super().train_round(request, message)
        match self._attack:
            case "shuffled-labels" | "absent":
                return said, trained
            case "random-weights":
                drawn = torch_rng(request.experiment.seed, "random weights", request.round, said["site"])
                now = {name: torch.randn(value.shape, generator=drawn) for name, value in trained.now.items()}
            case "sign-flip":
                now = {name: 2 * trained.received[name] - value for name, value in trained.now.items()}
            case _:
                assert_never(self._attack)
        return said, replace(trained, now=now)

    def _split(self, experiment: Experiment, here: Opened) -> tuple[Batch, Batch]:
        training, validation = super()._split(experiment, here)
        if self._attack != "shuffled-labels":
            return training, validation
        drawn = torch_rng(experiment.seed, "shuffled labels", here.shard.info.site)
        order = torch.randperm(len(training), generator=drawn).to(training.device)
        return replace(training, labels=training.labels[order]), validation


def with_hostile(sites: Sequence[Site], hostile: Hostile | None) -> list[Site]:
    """The sites, with hostile ones in the places of the first. None: no hostile sites.

    Raises ConfigError when no site would be honest.
    """
    if hostile is None:
        return list(sites)
    if hostile.sites >= len(sites):
        reason = f"{hostile.sites} sites are hostile, but a federation has {len(sites)}: no site would be honest"
        raise ConfigError("hostile", [reason])
    if hostile.attack == "absent":
        return list(sites[hostile.sites :])
    return [*(HostileSite(site, hostile.attack) for site in sites[: hostile.sites]), *sites[hostile.sites :]]
