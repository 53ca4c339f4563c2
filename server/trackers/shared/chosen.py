"""The trackers that the user of a run has chosen."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from common.config.component import Reference, build
from common.config.experiment import Experiment
from common.config.reading import resolved
from common.errors import ConfigError
from server.trackers.shared.follower import Event, Follower

SOURCE = "--track"
WAIT_SECONDS = 10.0
"""How long the end of a run waits for all its trackers together."""


def references(given: Sequence[str | Mapping[str, Any]]) -> list[Reference]:
    """The references of trackers with all their options. given: names, or names with options, as mappings or as YAML.

    Raises ConfigError with every mistake.
    """
    found, mistakes = [], []
    for one in given:
        try:
            found.append(yaml.safe_load(one) if isinstance(one, str) else dict(one))
        except yaml.YAMLError:
            mistakes.append(f"{one!r}: a name, or a mapping such as '{{name: prometheus, port: 9500}}', is needed")
    try:
        chosen = resolved("tracker", found, SOURCE)
    except ConfigError as error:
        mistakes += error.mistakes
    if mistakes:
        raise ConfigError(SOURCE, mistakes)
    return chosen


class Trackers:
    """All trackers of a run. They work in threads of their own, so no method raises, and none waits except `end`.

    settings: the JSON of a list of references, or "" for no trackers.

    Raises ConfigError for an unknown name or a wrong option.
    """

    def __init__(self, settings: str) -> None:
        self._references = references(_listed(settings))
        self._followers: list[Follower] = []

    def begin(self, experiment: Experiment, folder: Path, resumed: bool) -> None:
        """Start the threads. folder: the run folder. resumed: whether the run continues the run in that folder."""
        folder = folder.resolve()
        self._followers = [Follower(one["name"], build("tracker", one).build(), folder) for one in self._references]
        self._tell(lambda tracker: tracker.begin(experiment, folder, resumed))

    def round(self, line: Mapping[str, Any]) -> None:
        """Pass on the line of a round, as it is now."""
        if self._followers:
            same = json.loads(json.dumps(line))
            self._tell(lambda tracker: tracker.round(same))

    def end(self, summary: Mapping[str, Any]) -> None:
        """Pass on the summary, and wait up to WAIT_SECONDS for the trackers."""
        self._tell(lambda tracker: tracker.end(summary))
        self._tell(None)
        until = time.monotonic() + WAIT_SECONDS
        for follower in self._followers:
            follower.wait(until)

    def _tell(self, event: Event | None) -> None:
        for follower in self._followers:
            follower.tell(event)


def _listed(settings: str) -> list[Any]:
    try:
        found = json.loads(settings or "[]")
    except ValueError as error:
        raise ConfigError("trackers", [f"not JSON: {error}"]) from None
    if not isinstance(found, list):
        raise ConfigError("trackers", ["a list of names, or of names with options, is needed"])
    return found
