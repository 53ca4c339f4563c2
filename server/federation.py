"""One run: introductions, rounds, evaluation, and what is recorded of them."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from common import wire
from common.blocks import Params, get_params
from common.build import build_model
from common.config import Experiment
from common.errors import RunError
from common.metrics import Tallies, figures
from common.types import subset_name
from server.evaluate import TestSet
from server.exchange import exchange, wait_for_nodes
from server.record import RunFolder
from server.strategies.base import MultimodalStrategy

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """What is known of a run so far, for the summary of a run that ended well or not."""

    rounds: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    test: Tallies | None = None
    validation: Tallies | None = None


class Federation:
    """A run of one experiment over the nodes of a grid."""

    def __init__(
        self,
        experiment: Experiment,
        grid: Grid,
        test_shard: Path | None,
        run: RunFolder,
        probe_shard: Path | None = None,
    ) -> None:
        self.experiment, self.grid, self.run_folder = experiment, grid, run
        self.strategy: MultimodalStrategy = experiment.component("strategy").build(experiment, probe_shard)
        self.test = TestSet(experiment, test_shard) if test_shard else None
        self.classes: tuple[str, ...] = self.test.classes if self.test else ()
        self.progress = Progress()

    def run(self) -> Params:
        """All rounds; the last global parameters.

        Raises RunError when too few clients take part.
        """
        self._gather()
        params = get_params(build_model(self.experiment, len(self.classes)))
        self._record(0, params, {}, time.perf_counter(), 0.0, 0.0)
        for number in range(1, self.experiment.federation.rounds + 1):
            params = self._round(number, params)
            self.run_folder.model(params, self.experiment, self.classes)
        return params

    def _gather(self) -> None:
        """Wait for the clients and let them introduce themselves."""
        settings, clients = self.experiment.federation, self.experiment.data.clients
        needed = min(settings.min_replies or clients, clients)
        nodes = wait_for_nodes(
            self.grid,
            clients,
            settings.wait_seconds,
            lambda seen: log.info("%d of %d clients connected", seen, clients),
        )
        if len(nodes) < needed:
            raise RunError(f"{len(nodes)} clients connected within {settings.wait_seconds:g} s, {needed} needed")
        self.strategy.introduce(self.grid, self.classes or None, nodes)
        accepted = len(self.strategy.sites)
        if accepted < needed:
            reasons = "".join(f"\n  - {site}: {why}" for site, why in sorted(self.strategy.refused.items()))
            raise RunError(f"{accepted} of {len(nodes)} clients can take part, {needed} needed{reasons}")
        self.classes = next(iter(self.strategy.sites.values())).classes

    def _round(self, number: int, params: Params) -> Params:
        started = time.perf_counter()
        if number > 1:
            self.strategy.introduce(self.grid, self.classes, self.grid.get_node_ids())
        messages = self.strategy.configure_train(number, wire.pack(params), ConfigRecord(), self.grid)
        replies = []
        for reply in exchange(self.grid, messages, self.experiment.federation.round_seconds):
            if reply.message is None:
                self.strategy.fail(reply.node, reply.error)
            else:
                replies.append(reply.message)
        exchanged = time.perf_counter()
        arrays, _ = self.strategy.aggregate_train(number, replies)
        assert arrays is not None
        params = wire.unpack(arrays)
        aggregated = time.perf_counter()
        self._record(number, params, self._client_lines(), started, exchanged - started, aggregated - exchanged)
        return params

    def _client_lines(self) -> dict[str, Any]:
        return {
            site: {**line, "validation": figures(line["validation"])}
            for site, line in sorted(self.strategy.report.clients.items())
        }

    def _record(
        self,
        number: int,
        params: Params,
        clients: dict[str, Any],
        started: float,
        exchange: float,
        aggregate: float,
    ) -> None:
        """Evaluate the model after a round and write the round's line."""
        before = time.perf_counter()
        test = self.test.evaluate(params) if self.test else {}
        now, report = time.perf_counter(), self.strategy.report
        self.run_folder.round(
            {
                "round": number,
                "test": figures(test),
                "validation": figures(report.validation),
                "losses": report.losses,
                "aggregation": report.aggregation,
                "clients": clients,
                "failed": report.failed,
                "bytes_up": report.bytes_up,
                "bytes_down": report.bytes_down,
                "seconds": {
                    "exchange": exchange,
                    "aggregate": aggregate,
                    "evaluate": now - before,
                    "total": now - started,
                },
            }
        )
        self.progress.rounds = number
        self.progress.bytes_up += report.bytes_up
        self.progress.bytes_down += report.bytes_down
        self.progress.test, self.progress.validation = test or None, report.validation or None
        log.info("round %d: %s", number, {name: round(t["accuracy"], 4) for name, t in figures(test).items()})

    def summary(self) -> dict[str, Any]:
        """The figures of summary.json, from the last round that was finished."""
        measured = self.progress.test or self.progress.validation or {}
        by_subset = figures(measured)
        complete = by_subset.get(subset_name(self.experiment.modalities))
        return {
            "rounds": self.progress.rounds,
            "modalities": self.experiment.modalities,
            "classes": list(self.classes),
            "accuracy": {name: values["accuracy"] for name, values in by_subset.items()},
            "accuracy_on": "test" if self.progress.test else "validation",
            "macro_f1": complete["macro_f1"] if complete else None,
            "bytes_up": self.progress.bytes_up,
            "bytes_down": self.progress.bytes_down,
            "sites": {
                site.name: {
                    "modalities": sorted(site.modalities),
                    "num_examples": site.num_examples,
                    "unreadable": sum(site.unreadable.values()),
                }
                for site in sorted(self.strategy.sites.values(), key=lambda site: site.name)
            },
            "refused": self.strategy.refused,
        }
