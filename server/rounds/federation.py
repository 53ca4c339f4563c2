"""One run: introductions, rounds, evaluation, and the records in the run folder."""

import json
import logging
import time
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord
from flwr.serverapp import Grid

from common.blocks import Params, get_params
from common.build import build_model
from common.config.experiment import Experiment
from common.errors import RunError, ShardError
from common.exchange import wire
from common.metrics import Tallies, Tally, figures
from common.modality import subset_name
from server.clients.exchange import exchange
from server.clients.roster import listed
from server.own_data.evaluate import TestSet
from server.record.checkpoint import Checkpoint, save_checkpoint
from server.record.run_folder import RunFolder
from server.rounds.collapse import LastGood
from server.rounds.waiting import Waiting
from server.sites.attention import unlike
from server.strategies.base import MultimodalStrategy

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.2
TEST = "test"


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


@dataclass(frozen=True)
class Kept:
    """The model with which a run continues after a round, and its test figures.

    why: the reason why the model is not the round's mean, or "". seconds: the time of the evaluation.
    """

    params: Params
    test: Tallies
    why: str
    seconds: float


class Federation:
    """A run of one experiment over the nodes of a grid, from its beginning or from the run folder's checkpoint."""

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
        self.roster = self.strategy.roster
        self.test = TestSet(experiment, test_shard) if test_shard else None
        self.roster.classes = self._given_classes()
        self.progress = Progress()
        self.good = LastGood(experiment.federation.collapse)
        if run.checkpoint:
            self._restore(run.checkpoint)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the federation; empty while they are unknown."""
        return self.roster.classes or ()

    def _given_classes(self) -> tuple[str, ...] | None:
        """The classes of the experiment or of the test shard; None if there are neither.

        Raises ShardError when both exist and differ.
        """
        named = self.experiment.data.classes
        if self.test is None:
            return tuple(named) if named is not None else None
        if named is not None and self.test.classes != tuple(named):
            differs = unlike(self.test.classes, named)
            raise ShardError(f"shard {self.test.folder}: its classes differ from data.classes: {differs}")
        return self.test.classes

    def run(self) -> Params:
        """Run all remaining rounds. Returns the last global parameters.

        Raises RunError when too few clients take part or when the model cannot be saved.
        """
        start = self.run_folder.checkpoint
        done, params = (start.round, start.params) if start else (0, None)
        if done < self.experiment.federation.rounds:
            self._gather()
        if params is None:
            params = get_params(build_model(self.experiment, len(self.classes)))
            self._record(0, self._judged(params, params), {}, (time.perf_counter(), 0.0, 0.0))
        else:
            self.run_folder.model(params, self.experiment, self.classes)
        for number in range(done + 1, self.experiment.federation.rounds + 1):
            params = self._round_from(number, params)
            # The checkpoint comes first, so that the model's privacy loss is counted before the model is published.
            save_checkpoint(self.run_folder.folder, self._checkpoint(number, params))
            self.run_folder.model(params, self.experiment, self.classes)
        return params

    def _checkpoint(self, number: int, params: Params) -> Checkpoint:
        tallies = self.progress.validation or {}
        about = {
            "experiment": json.loads(self.experiment.to_json()),
            "classes": self.classes,
            "roster": self.roster.state(),
            "bytes_up": self.progress.bytes_up,
            "bytes_down": self.progress.bytes_down,
            "resumed": self.progress.resumed,
            "validation": {name: asdict(tally) for name, tally in tallies.items()},
            "usual_norm": self.strategy.usual_norm,
            "best": self.good.best,
        }
        return Checkpoint(number, params, self.strategy.state(), about)

    def _restore(self, checkpoint: Checkpoint) -> None:
        about = checkpoint.about
        self.strategy.restore(checkpoint.strategy)
        self.strategy.usual_norm = about["usual_norm"]
        # Sites measure a model in the round after it was made, so the newest model has no accuracy yet.
        before = checkpoint.before
        self.good.params, self.good.before = (checkpoint.params, before) if self.test else (before, {})
        self.good.best = dict(about["best"])
        self.roster.restore(about["roster"])
        self.roster.classes = tuple(about["classes"])
        validation = {name: Tally(**counts) for name, counts in about["validation"].items()}
        self.progress = Progress(
            checkpoint.round,
            about["bytes_up"],
            about["bytes_down"],
            [*about["resumed"], checkpoint.round],
            self.test.evaluate(checkpoint.params) if self.test else None,
            validation or None,
        )

    def _gather(self) -> None:
        """Wait until the clients have connected and introduced themselves."""
        settings, clients = self.experiment.federation, self.experiment.data.clients
        until = time.time() + settings.wait_seconds
        said = partial(self.run_folder.status, until=until)
        self.roster.gather(self.grid, clients, settings.wait_seconds, said)
        self.roster.settle()
        if not self.strategy.can_satisfy():
            raise RunError(self.strategy.too_few(f"within {settings.wait_seconds:g} s"))

    def _wait_until_possible(self) -> None:
        """Wait until enough sites are free for a round.

        Raises RunError with the missing sites after `federation.wait_seconds`, or when no site can come back.
        """
        settings, strategy, roster = self.experiment.federation, self.strategy, self.roster
        deadline = time.monotonic() + settings.wait_seconds
        until = time.time() + settings.wait_seconds
        roster.look(self.grid)
        while not strategy.can_satisfy():
            self.run_folder.status(f"waiting for sites to come back{listed(roster.lost)}", until)
            if not roster.expecting(self.experiment.data.clients) or time.monotonic() > deadline:
                raise RunError(strategy.too_few(f"within {settings.wait_seconds:g} s"))
            time.sleep(LOOK_SECONDS)
            roster.look(self.grid)

    def _round_from(self, number: int, params: Params) -> Params:
        """The model after a round. If sites reply that they cannot train the model, the round is repeated with the good
        model before.

        Raises RunError.
        """
        try:
            return self._round(number, params)
        except RunError as error:
            before = self.good.instead(params)
            if not self.strategy.report.rejected or not before:
                raise
            log.warning("%s", error)
            undone = f"the model of round {number - 1} could not be trained; the run continued from the model before"
            return self._round(number, before, undone)

    def _round(self, number: int, params: Params, undone: str = "") -> Params:
        started = time.perf_counter()
        packed = wire.pack(params)
        self.strategy.begin_round(number, packed)
        for _ in range(1 + self.experiment.federation.retries):
            self._wait_until_possible()
            messages = list(self.strategy.configure_train(number, packed, ConfigRecord(), self.grid))
            waiting = Waiting(number, messages, self.strategy.sites, self.experiment, self.run_folder)
            for reply in exchange(self.grid, messages, self.experiment.federation.round_seconds):
                waiting.heard(reply.node)
                if reply.message is None:
                    self.strategy.lose(reply.node, reply.error)
                else:
                    self.strategy.receive(reply.message)
            if self.strategy.satisfied():
                break
        exchanged = time.perf_counter()
        self.run_folder.status(f"round {number}: aggregating and evaluating")
        arrays, _ = self.strategy.aggregate_train(number, [])
        assert arrays is not None
        aggregated = time.perf_counter()
        kept = self._judged(wire.unpack(arrays), params)
        kept = replace(kept, why=kept.why or undone)
        self._record(number, kept, self._client_lines(), (started, exchanged - started, aggregated - exchanged))
        return kept.params

    def _judged(self, params: Params, received: Params) -> "Kept":
        """The model with which the run continues after a round: the round's mean, unless accuracy collapsed.

        received: the parameters that the clients received and validated in the round.
        """
        before, full = time.perf_counter(), subset_name(self.experiment.modalities)
        if self.test:
            test = self.test.evaluate(params)
            if why := self.good.judge(params, {TEST: test[full]} if full in test else {}):
                params, test = self.good.params, self.progress.test or {}
            return Kept(params, test, why, time.perf_counter() - before)
        told = self.strategy.report.clients
        why = self.good.judge(received, {s: d["validation"][full] for s, d in told.items() if full in d["validation"]})
        return Kept(self.good.params if why else params, {}, why, time.perf_counter() - before)

    def _client_lines(self) -> dict[str, Any]:
        return {
            site: {**line, "validation": figures(line["validation"])}
            for site, line in sorted(self.strategy.report.clients.items())
        }

    def _record(
        self,
        number: int,
        kept: "Kept",
        clients: dict[str, Any],
        times: tuple[float, float, float],
    ) -> None:
        """Write the round's line. times: the round's start, and the seconds of exchange and of aggregation."""
        (started, exchange, aggregate), test = times, kept.test
        now, report = time.perf_counter(), self.strategy.report
        # Sites and classes are written only once, in the line of round 0, for programs that follow the run.
        about = {} if number else {"classes": self.classes, "sites": self._sites()}
        self.run_folder.round(
            about
            | {
                "round": number,
                "test": figures(test),
                "validation": figures(report.validation),
                "losses": report.losses,
                "aggregation": report.aggregation,
                "collapsed": kept.why,
                "clients": clients,
                "failed": report.failed,
                "refused": self.roster.refused,
                "missing": self.roster.lost,
                "attempts": report.attempts,
                "block_bytes": report.block_bytes,
                "bytes_up": report.bytes_up,
                "bytes_down": report.bytes_down,
                "seconds": {
                    "exchange": exchange,
                    "aggregate": aggregate,
                    "evaluate": kept.seconds,
                    "total": now - started,
                    "ended": time.time(),
                },
            }
        )
        self.progress.rounds = number
        self.progress.bytes_up += report.bytes_up
        self.progress.bytes_down += report.bytes_down
        self.progress.test, self.progress.validation = test or None, report.validation or None
        if kept.why:
            log.warning("round %d: %s", number, kept.why)
        log.info("round %d: %s", number, {name: round(t["accuracy"], 4) for name, t in figures(test).items()})

    def summary(self) -> dict[str, Any]:
        """The figures of summary.json, from the last finished round."""
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
            "resumed": self.progress.resumed,
            "sites": self._sites(),
            "refused": self.roster.refused,
            "missing": self.roster.lost,
            "failed": self._failed_at_the_end(),
        }

    def _failed_at_the_end(self) -> dict[str, str]:
        """The failures of sites in an unfinished round, which has no line in metrics.jsonl."""
        unfinished = self.strategy.round > self.progress.rounds
        return dict(self.strategy.report.failed) if unfinished else {}

    def _sites(self) -> dict[str, Any]:
        return {
            site.name: {
                "modalities": sorted(site.modalities),
                "num_examples": site.num_examples,
                "local_dp": site.local_dp,
                "unreadable": sum(found.unreadable for found in site.findings.values()),
                "findings": {m: found.model_dump() for m, found in sorted(site.findings.items())},
            }
            for _, site in sorted(self.roster.known.items())
        }
