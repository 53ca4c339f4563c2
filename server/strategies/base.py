"""What every strategy shares: introductions, sampling, block-wise messages, checks of what came back."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from common import wire
from common.blocks import Params, select
from common.build import build_model
from common.component import Component
from common.config import Experiment
from common.errors import RunError, WireError
from common.metrics import Tallies, merge
from common.seeding import rng
from common.types import Site, Update
from server.aggregation import BlockMean
from server.checks import check_update
from server.exchange import exchange
from server.optimizer import ServerOptimizer
from server.replies import Refusal, read_introduction, read_training_reply

log = logging.getLogger(__name__)
FIGURES = ("num_examples", "losses", "validation", "unreadable", "seconds")
"""What of a client's reply goes into the report of the round."""


@dataclass
class RoundReport:
    """What a round gave besides parameters.

    clients: by site, its figures. failed: by site, why nothing of it was used. validation: merged over the clients, of
    the model they received. aggregation: what the strategy says of how it weighed the clients.
    """

    clients: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    validation: Tallies = field(default_factory=dict)
    aggregation: dict[str, Any] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0


class MultimodalStrategy(Strategy):
    """A Flower strategy for clients that hold different modalities.

    Each client gets and returns only the blocks of the modalities it holds and the shared one. A subclass says how one
    client's update enters the mean, and may wait with it until all are there; everything else is final.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.sites: dict[int, Site] = {}
        self.refused: dict[str, str] = {}
        self.report = RoundReport()
        self._received: Params = {}
        optimizer = experiment.federation.optimizer
        self._optimizer = ServerOptimizer(optimizer) if optimizer else None
        self._asked: set[int] = set()

    @abstractmethod
    def contribute(self, mean: BlockMean, update: Update, received: Mapping[str, Tensor]) -> None:
        """Add one client's update to the mean. received: the global parameters of all blocks at the round's start."""

    def finish(self, mean: BlockMean) -> dict[str, Any]:
        """Complete the mean once every update has come; figures for the round's report. By default nothing."""
        return {}

    def introduce(self, grid: Grid, classes: tuple[str, ...] | None, nodes: Iterable[int]) -> None:
        """Ask nodes that have not been asked yet who they are.

        classes: what the class lists of the sites must equal; None: the list of the first accepted one. A site that
        cannot take part goes into `refused` with the reason.
        """
        new = [node for node in nodes if node not in self._asked]
        content = wire.record({"experiment": self.experiment.to_json()})
        messages = [Message(content, dst_node_id=node, message_type="query", group_id="introduction") for node in new]
        answers: list[tuple[int, Site]] = []
        for reply in exchange(grid, messages, self.experiment.federation.round_seconds):
            self._asked.add(reply.node)
            if reply.message is None:
                self._refuse(f"node {reply.node}", reply.error)
                continue
            try:
                answer = read_introduction(wire.read_body(reply.message))
            except WireError as error:
                self._refuse(f"node {reply.node}", str(error))
                continue
            if isinstance(answer, Refusal):
                self._refuse(answer.site, answer.error)
            else:
                answers.append((reply.node, answer))
        for node, site in sorted(answers, key=lambda answer: (answer[1].name, answer[0])):
            classes = classes or self._classes() or site.classes
            self._accept(node, site, classes)

    def _accept(self, node: int, site: Site, classes: tuple[str, ...]) -> None:
        if site.classes != classes:
            self._refuse(site.name, f"its classes {list(site.classes)} are not the federation's {list(classes)}")
        elif not site.modalities <= set(self.experiment.modalities):
            self._refuse(site.name, f"it holds {sorted(site.modalities)}, unknown to the experiment")
        elif any(known.name == site.name for known in self.sites.values()):
            self._refuse(f"{site.name} (node {node})", "another site has this name")
        else:
            self.sites[node] = site
            log.info("site %s: %s, %d examples", site.name, "+".join(sorted(site.modalities)), site.num_examples)

    def _refuse(self, site: str, reason: str) -> None:
        log.warning("site %s is refused: %s", site, reason)
        self.refused[site] = reason

    def _classes(self) -> tuple[str, ...] | None:
        return next((site.classes for site in self.sites.values()), None)

    def sample(self, server_round: int) -> list[int]:
        """The nodes of a round: a function of the seed, the round and the sites' names."""
        nodes = sorted(self.sites, key=lambda node: self.sites[node].name)
        wanted = self.experiment.federation.sample or len(nodes)
        chosen = rng(self.experiment.seed, "sample", server_round).permutation(len(nodes))[:wanted]
        return [nodes[i] for i in sorted(chosen)]

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message to each sampled node, with the blocks it holds; messages for the same blocks share one record."""
        if not self.sites:
            self.introduce(grid, None, grid.get_node_ids())
        self._received = wire.unpack(arrays)
        self.report = RoundReport()
        packed: dict[frozenset[str], ArrayRecord] = {}
        messages = []
        for node in self.sample(server_round):
            held = self.sites[node].modalities
            if held not in packed:
                packed[held] = wire.pack(select(self._received, held), self.experiment.wire.dtype)
            content = wire.record({"experiment": self.experiment.to_json(), "round": server_round}, packed[held])
            self.report.bytes_down += wire.size(content)
            self.report.clients[self.sites[node].name] = {"bytes_down": wire.size(content)}
            messages.append(
                Message(
                    content,
                    dst_node_id=node,
                    message_type="train",
                    group_id=str(server_round),
                    ttl=self.experiment.federation.round_seconds,
                )
            )
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The new global parameters, from every reply that passes the checks; the mean losses as metrics.

        Raises RunError, naming the sites, when fewer than `federation.min_replies` do.
        """
        mean = BlockMean()
        used = sum(self._use(message, server_round, mean) for message in replies)
        for name in [name for name, figures in self.report.clients.items() if "bytes_up" not in figures]:
            del self.report.clients[name]
            self.report.failed[name] = "no reply"
        sampled = len(self.report.clients) + len(self.report.failed)
        needed = self.experiment.federation.min_replies or sampled
        if used < needed:
            reasons = "".join(f"\n  - {site}: {why}" for site, why in sorted(self.report.failed.items()))
            raise RunError(
                f"round {server_round}: {used} of {sampled} clients gave a usable reply, {needed} needed{reasons}"
            )
        self._merge_figures()
        self.report.aggregation = self.finish(mean)
        params = mean.result(self._received)
        if self._optimizer is not None:
            params = self._optimizer.step(server_round, self._received, params, self._learned())
        return wire.pack(params), MetricRecord(dict(self.report.losses))

    def _learned(self) -> set[str]:
        """The names of the parameters that training learns by gradients."""
        model = build_model(self.experiment, len(self._classes() or ()))
        return {name for name, _ in model.named_parameters()}

    def fail(self, node: int, reason: str) -> None:
        """Note that a sampled node gave nothing usable."""
        name = self.sites[node].name
        log.warning("site %s: %s", name, reason)
        self.report.failed[name] = reason
        self.report.clients.pop(name, None)

    def _use(self, message: Message, server_round: int, mean: BlockMean) -> bool:
        """Add one reply to the mean; a bad one is refused with site and reason."""
        node = message.metadata.src_node_id
        if message.has_error():
            return False
        site = self.sites[node]
        try:
            figures = read_training_reply(wire.read_body(message), server_round, len(site.classes))
            update = Update(site.name, site.modalities, wire.read_params(message), figures.num_examples)
            check_update(update, self._received)
        except WireError as error:
            self.fail(node, str(error))
            return False
        self.contribute(mean, update, self._received)
        up = wire.size(message.content)
        self.report.bytes_up += up
        said = {name: getattr(figures, name) for name in FIGURES}
        self.report.clients[site.name] |= {"modalities": sorted(site.modalities), "bytes_up": up, **said}
        return True

    def _merge_figures(self) -> None:
        """Validation counts added up; losses averaged by examples over the clients that have the term."""
        sums: dict[str, tuple[float, int]] = {}
        for figures in self.report.clients.values():
            self.report.validation = merge(self.report.validation, figures["validation"])
            for name, value in figures["losses"].items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + value * figures["num_examples"], count + figures["num_examples"])
        self.report.losses = {name: total / count for name, (total, count) in sorted(sums.items())}

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """None: clients evaluate the model they receive for training, so a round is one exchange."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """None, see `configure_evaluate`."""
        return None

    def summary(self) -> None:
        """Log the strategy and its sites."""
        log.info("%s over %d sites", type(self).__name__, len(self.sites))


class StrategyOptions(Component):
    """Base of the strategies' options."""

    @abstractmethod
    def build(self, experiment: Experiment, probe: Path | None) -> MultimodalStrategy:
        """The strategy for an experiment. probe: folder of the server's probe shard, for a strategy that needs one."""
