"""The figures of a round: clients, failures, losses, bytes."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from common.evaluation.evaluate import Tallies


@dataclass
class RoundReport:
    """The figures of a round.

    clients: by site, its figures. failed: by site, the reason why its update was not used. rejected: the part of
    `failed` with a reply. validation: counts for the model that the clients received, merged over the clients.
    aggregation: the strategy's figures, e.g. the clients' weights. attempts: how often messages were sent to sites.
    bytes_to: by site, the bytes of the last message to it. block_bytes: the bytes of the parameters by block, up and
    down; the rest of the messages is figures and headers.
    """

    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    validation: Tallies = field(default_factory=dict)
    aggregation: dict[str, Any] = field(default_factory=dict)
    attempts: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    bytes_to: dict[str, int] = field(default_factory=dict)
    block_bytes: dict[str, Counter[str]] = field(default_factory=lambda: {"up": Counter(), "down": Counter()})

    def sent(self, site: str, count: int, blocks: Counter[str]) -> None:
        """Note a message to a site. count: its bytes. blocks: the bytes of its parameters by block."""
        self.bytes_to[site] = count
        self.bytes_down += count
        self.block_bytes["down"] += blocks

    def used(self, site: str, figures: dict[str, Any]) -> None:
        """Note the figures of a site whose update is part of the mean."""
        self.clients[site] = {"bytes_down": self.bytes_to[site], **figures}
        self.bytes_up += figures["bytes_up"]
