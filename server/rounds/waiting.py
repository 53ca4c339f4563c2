"""The status line of a round: the sites whose replies are still missing."""

import time
from collections.abc import Mapping, Sequence

from flwr.app import Message

from common.config.experiment import Experiment
from common.types import Site
from common.words.units import few
from server.record.run_folder import RunFolder

EVERY_SECONDS = 0.5
"""Shortest time between two status lines, in seconds."""
NAMED = 5


class Waiting:
    """Writes to the run folder which sites of a round have not replied yet."""

    def __init__(
        self,
        number: int,
        messages: Sequence[Message],
        sites: Mapping[int, Site],
        experiment: Experiment,
        run: RunFolder,
    ) -> None:
        self._number, self._run, self._rounds = number, run, experiment.federation.rounds
        self._names = {node: sites[node].name for node in (message.metadata.dst_node_id for message in messages)}
        self._until = time.time() + experiment.federation.round_seconds
        self._asked, self._said = len(self._names), 0.0
        self._say()

    def heard(self, node: int) -> None:
        """Note that a node has replied or has failed."""
        self._names.pop(node, None)
        if time.monotonic() - self._said > EVERY_SECONDS:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        there = f"{self._asked - len(self._names)} of {self._asked} sites have replied"
        names = sorted(self._names.values())
        missing = f"; waiting for {few(names, NAMED)}" if names else ""
        self._run.status(f"round {self._number} of {self._rounds}: {there}{missing}", self._until)
