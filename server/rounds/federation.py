"""One run: introductions, rounds, evaluation, and the records in the run folder."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord
from flwr.serverapp import Grid

from common.blocks import Params, get_params
from common.build import build_model
from common.config.experiment import Experiment
from common.config.reading import plugins_of
from common.errors import ConfigError, RunError, ShardError
from common.evaluation.figures import metrics_of
from common.exchange import wire
from common.modality import subset_name
from common.tasks.base import Task
from common.tasks.observed import Tally, WrittenPart, read_tally
from common.types import CPU
from server.clients.exchange import exchange
from server.clients.roster import listed
from server.own_data.evaluate import TestSet
from server.record.checkpoint import Checkpoint, save_checkpoint
from server.record.format import FORMAT
from server.record.run_folder import RunFolder
from server.rounds.collapse import LastGood, Skill
from server.rounds.keeping import TEST, BestModel
from server.rounds.progress import Clock, Kept, Progress, round_line, site_lines
from server.rounds.starting import GivenModel, started_in_words
from server.rounds.waiting import Waiting
from server.sites.attention import unlike
from server.strategies.base import MultimodalStrategy

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.2


class Federation:
    """A run of one experiment over the nodes of a grid, from its beginning or from the run folder's checkpoint. device:
    the device of the server's evaluation, and of its representations (strategy cka). given: the model to start from;
    None: random weights."""

    def __init__(
        self,
        experiment: Experiment,
        grid: Grid,
        test_shard: Path | None,
        run: RunFolder,
        probe_shard: Path | None = None,
        device: torch.device = CPU,
        given: GivenModel | None = None,
    ) -> None:
        self.experiment, self.grid, self.run_folder = experiment, grid, run
        self.strategy: MultimodalStrategy = experiment.component("strategy").build(experiment, probe_shard)
        self.strategy.use(device)
        self.plugins = plugins_of(experiment)
        self.roster = self.strategy.roster
        self.test = TestSet(experiment, test_shard, device) if test_shard else None
        self.roster.classes = self._given_classes()
        if self.roster.classes is not None:  # if not, each site checks its own classes
            experiment.check_classes(self.roster.classes)
        self.given = given
        self.started: dict[str, Any] | None = None
        self.metrics = metrics_of(experiment)
        self.progress = Progress()
        self.intervals: dict[str, dict[str, list[float]]] = {}
        self._published: Params = {}
        self.good = LastGood(experiment.federation.collapse, name=self.task.main)
        self.best = BestModel.of(experiment, self.metrics)
        if self.test is None and self.best.selection and self.best.selection.on == TEST:
            remedy = "the server has no test shard: use --test-shard, or choose validation"
            raise ConfigError(f"experiment {experiment.name}", [f"federation.keep.best is on test, but {remedy}"])
        if run.checkpoint:
            self._restore(run.checkpoint)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the federation; empty while they are unknown."""
        return self.roster.classes or ()

    @property
    def task(self) -> Task:
        """The task, with the classes of the federation."""
        return self.strategy.task

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
        planned = range(done + 1, self.experiment.federation.rounds + 1)
        if planned and not self.best.stopped:
            self._gather()
        if params is None:
            params = self._initial()
            clock = Clock()
            kept = self._judged(params, params)
            clock.lap("evaluate")
            self._record(0, params, kept, clock)
        else:
            self._publish(params)
        for number in planned:
            if self.best.stopped:
                break
            params = self._round_from(number, params)
            # The checkpoint comes first, so that the model's privacy loss is counted before the model is published.
            save_checkpoint(self.run_folder.folder, self._checkpoint(number, params))
            self._publish(params)
        self._conclude()
        return params

    def _initial(self) -> Params:
        """The model before the first round."""
        params = get_params(build_model(self.experiment, len(self.classes)))
        if self.given:
            params, self.started = self.given.into(params, self.experiment, self.classes)
            for sentence in started_in_words(self.started):
                log.info("%s", sentence)
        return params

    def _publish(self, params: Params) -> None:
        """Write the last model, and the best one if it is new."""
        self.run_folder.model(params, self.experiment, self.classes)
        if self.best.params and self.best.params is not self._published:
            self.run_folder.best(self.best.params, self.experiment, self.classes, self.best.about())
            self._published = self.best.params

    def _conclude(self) -> None:
        """Log the end, and remove the last model if the experiment keeps only the best one."""
        if self.best.stopped:
            log.info("the run ends early: %s", self.best.stopped)
        if self.best.selection and not self.best.params:
            log.warning("no round measured %s: there is no best model", self.best.selection)
        elif not self.experiment.federation.keep.last:
            self.run_folder.only_best()

    def _checkpoint(self, number: int, params: Params) -> Checkpoint:
        tallies = self.progress.validation or {}
        about = {
            "experiment": json.loads(self.experiment.to_json()),
            "plugins": self.plugins,
            "classes": self.classes,
            "roster": self.roster.state(),
            "bytes_up": self.progress.bytes_up,
            "bytes_down": self.progress.bytes_down,
            "resumed": self.progress.resumed,
            "validation": {name: tally.written() for name, tally in tallies.items()},
            "usual_norm": self.strategy.usual_norm,
            "best": self.good.best,
            "best_model": self.best.state(),
            "started_from": self.started,
        }
        return Checkpoint(number, params, self.strategy.state(), about, best=self.best.params)

    def _restore(self, checkpoint: Checkpoint) -> None:
        about = checkpoint.about
        self.strategy.restore(checkpoint.strategy)
        self.strategy.usual_norm = about["usual_norm"]
        # Sites measure a model in the round after it was made, so the newest model has no accuracy yet.
        before = checkpoint.before
        self.good.params, self.good.before = (checkpoint.params, before) if self.test else (before, {})
        self.good.best = dict(about["best"])
        self.started = about["started_from"]
        self.best.restore(about["best_model"], checkpoint.best)
        self.roster.restore(about["roster"])
        self.roster.classes = tuple(about["classes"])
        shapes = self.task.shapes()
        validation = {
            subset: read_tally({name: WrittenPart(**part) for name, part in written.items()}, shapes)
            for subset, written in about["validation"].items()
        }
        self.progress = Progress(
            checkpoint.round,
            about["bytes_up"],
            about["bytes_down"],
            [*about["resumed"], checkpoint.round],
            self.test.evaluate(checkpoint.params, self.task) if self.test else None,
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
        """One round: the clients train, the strategy aggregates, the server evaluates. Returns the model with which the
        run continues.

        params: the global model. undone: the reason why it is not the model of the round before, or "".

        Raises RunError when too few usable replies come.
        """
        clock, packed = Clock(), wire.pack(params)
        self.strategy.begin_round(number, packed)
        self._exchange(number, packed)
        clock.lap("exchange")
        self.run_folder.status(f"round {number}: aggregating and evaluating")
        arrays, _ = self.strategy.aggregate_train(number, [])
        assert arrays is not None
        clock.lap("aggregate")
        kept = self._judged(wire.unpack(arrays), params)
        clock.lap("evaluate")
        self._record(number, params, replace(kept, why=kept.why or undone), clock)
        return kept.params

    def _exchange(self, number: int, packed: ArrayRecord) -> None:
        """Send the global model to the sampled clients, and hand their replies to the strategy. Asks again, up to
        `retries` times, while too few replies are usable."""
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
                return

    def _judged(self, params: Params, received: Params) -> Kept:
        """The model with which the run continues after a round: the round's mean, unless accuracy collapsed.

        received: the parameters that the clients received and validated in the round.
        """
        full = subset_name(self.experiment.modalities)
        if self.test:
            test = self.test.evaluate(params, self.task)
            if why := self.good.judge(params, self._skills({TEST: test[full]} if full in test else {})):
                return Kept(self.good.params, self.progress.test or {}, why)
            return Kept(params, test, "")
        told = self.strategy.report.clients
        measured = {site: line["validation"][full] for site, line in told.items() if full in line["validation"]}
        why = self.good.judge(received, self._skills(measured))
        return Kept(self.good.params if why else params, {}, why)

    def _skills(self, measured: Mapping[str, Tally]) -> dict[str, Skill]:
        """The skill of each measurer that has sent the counts it needs."""
        found = {who: (self.task.skill(tally.parts), tally.examples) for who, tally in measured.items()}
        return {who: Skill(*skill, examples) for who, (skill, examples) in found.items() if skill is not None}

    def _record(self, number: int, received: Params, kept: Kept, clock: Clock) -> None:
        """Write the line of a round, and compare its model with the best one."""
        report = self.strategy.report
        started = list(started_in_words(self.started)) if self.started and not number else []
        line = round_line(number, kept, report, self.roster, clock, self.metrics)
        self.run_folder.round(line | ({"started_from": started} if started else {}))
        self.progress.add(number, kept, report)
        if kept.why:
            log.warning("round %d: %s", number, kept.why)
        scores = {subset: found[self.task.main] for subset, found in line["test"].items()}
        log.info("round %d: %s", number, {name: None if s is None else round(s, 4) for name, s in scores.items()})
        self.best.see(number, received, kept, report.validation)
        self.best.check(number, self.roster.known.values(), report.clients)

    def add_intervals(self, params: Params) -> None:
        """Add the bootstrap intervals of the last model on the test set to the summary. They take seconds, and a
        benchmark does not use them."""
        if self.test:
            self.intervals = self.test.intervals(params, self.task, self.metrics, self.experiment.seed)

    def summary(self) -> dict[str, Any]:
        """The figures of summary.json, whether the run succeeds or fails."""
        unfinished = self.strategy.round > self.progress.rounds  # it has no line in metrics.jsonl
        return {
            "format": FORMAT,
            "task": self.experiment.task.name,
            **self.progress.summary(self.task, self.metrics),
            "intervals": self.intervals,
            "started_from": self.started,
            "best": self.best.about(),
            "stopped": self.best.stopped,
            "modalities": self.experiment.modalities,
            "classes": list(self.classes),
            "plugins": list(self.plugins),
            "sites": site_lines(self.roster),
            "refused": self.roster.refused,
            "missing": self.roster.lost,
            "failed": dict(self.strategy.report.failed) if unfinished else {},
        }
