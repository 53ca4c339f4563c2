"""The base of every tracker: the events of a run that it receives."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.component import Component
from common.config.experiment import Experiment


class Tracker(ABC):
    """Receives the events of one run, in a thread of its own and in this order: `begin`, `round` for each line, `end`.
    `close` always comes last, also after an error.

    A tracker may block and may raise: a run never waits for its trackers. After the first exception, the run logs one
    warning with the reason, and calls `close` alone.
    """

    @abstractmethod
    def begin(self, experiment: Experiment, folder: Path, resumed: bool) -> None:
        """The run begins. folder: the run folder. resumed: whether it continues the run in that folder."""

    @abstractmethod
    def round(self, line: Mapping[str, Any]) -> None:
        """A round has ended. line: its line of metrics.jsonl. Round 0 is the initial model."""

    def end(self, summary: Mapping[str, Any]) -> None:  # noqa: B027  (a tracker may have nothing to do)
        """The run has ended, with or without success. summary: the content of summary.json."""

    def close(self) -> None:  # noqa: B027
        """Release files, ports and connections. Also called when `begin` has raised or was never called."""


class TrackerOptions(Component):
    """Base of the trackers' options. The options are part of a run's settings, so they contain no secrets."""

    @abstractmethod
    def build(self) -> Tracker:
        """A tracker for one run. It opens nothing and needs no package before `begin`."""
