"""The figures of a run: the state so far, the line of a round in metrics.jsonl, the figures of summary.json."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from common.blocks import Params
from common.evaluation.evaluate import Tallies
from common.evaluation.figures import Named, details, figures
from common.tasks.base import Task
from common.types import Site
from server.clients.roster import Roster
from server.record.format import FORMAT
from server.strategies.shared.round_report import RoundReport


class Clock:
    """The seconds of each step of a round, and of the whole round."""

    def __init__(self) -> None:
        self._started = self._before = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, step: str) -> None:
        """Note the seconds since the last step, or since the start."""
        now = time.perf_counter()
        self.seconds[step], self._before = now - self._before, now

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started


@dataclass(frozen=True)
class Kept:
    """The model with which a run continues after a round, and its test figures.

    why: the reason why the model is not the round's mean, or "".
    """

    params: Params
    test: Tallies
    why: str


@dataclass
class Progress:
    """The state of a run for its summary, whether it succeeds or fails.

    resumed: the rounds after which the run was resumed from a checkpoint.
    """

    rounds: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    resumed: list[int] = field(default_factory=list)
    test: Tallies | None = None
    validation: Tallies | None = None

    def add(self, number: int, kept: Kept, report: RoundReport) -> None:
        """Add a finished round."""
        self.rounds = number
        self.bytes_up += report.bytes_up
        self.bytes_down += report.bytes_down
        self.test, self.validation = kept.test or None, report.validation or None

    def summary(self, task: Task, metrics: Sequence[Named]) -> dict[str, Any]:
        """The figures of the last finished round, and the totals of the run."""
        by_subset = figures(self.test or self.validation or {}, metrics)
        return {
            "rounds": self.rounds,
            "metric": task.main,
            "scores": {name: values[task.main] for name, values in by_subset.items()},
            "measured_on": "test" if self.test else "validation",
            "figures": by_subset,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "resumed": self.resumed,
        }


def round_line(
    number: int, kept: Kept, report: RoundReport, roster: Roster, clock: Clock, metrics: Sequence[Named]
) -> dict[str, Any]:
    """The line of a round in metrics.jsonl. The line of round 0 also lists classes and sites, for programs that follow
    the run."""
    about = {} if number else {"format": FORMAT, "classes": roster.classes or (), "sites": site_lines(roster)}
    return about | {
        "round": number,
        "test": _detailed(kept.test, metrics),
        "validation": _detailed(report.validation, metrics),
        "losses": report.losses,
        "aggregation": report.aggregation,
        "collapsed": kept.why,
        "clients": _client_lines(report, metrics) if number else {},
        "failed": report.failed,
        "refused": roster.refused,
        "missing": roster.lost,
        "attempts": report.attempts,
        "block_bytes": report.block_bytes,
        "bytes_up": report.bytes_up,
        "bytes_down": report.bytes_down,
        "seconds": {"exchange": 0.0, "aggregate": 0.0, **clock.seconds, "total": clock.total(), "ended": time.time()},
    }


def _detailed(tallies: Tallies, metrics: Sequence[Named]) -> dict[str, Any]:
    return {subset: found | details(tallies[subset]) for subset, found in figures(tallies, metrics).items()}


def _client_lines(report: RoundReport, metrics: Sequence[Named]) -> dict[str, Any]:
    lines = sorted(report.clients.items())
    return {site: {**line, "validation": figures(line["validation"], metrics)} for site, line in lines}


def site_lines(roster: Roster) -> dict[str, Any]:
    """By name, the introduction of every site that has taken part."""
    return {site.name: _site_line(site) for _, site in sorted(roster.known.items())}


def _site_line(site: Site) -> dict[str, Any]:
    return {
        "modalities": sorted(site.modalities),
        "num_examples": site.num_examples,
        "local_dp": site.local_dp,
        "unreadable": sum(found.unreadable for found in site.findings.values()),
        "findings": {m: found.model_dump() for m, found in sorted(site.findings.items())},
    }
