"""The base of every strategy: introductions, sampling, block-wise messages and checks of the replies."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from common.blocks import Params, block_of, select, valid
from common.build import build_model
from common.config.component import Component
from common.config.experiment import Experiment
from common.config.reading import for_clients
from common.errors import DIVERGED, RunError, WireError
from common.evaluation.evaluate import merge
from common.exchange import wire
from common.modality import Modality
from common.seeding import rng
from common.tasks.base import Task
from common.tasks.find import task_of
from common.types import Site, Update
from server.aggregation.block_mean import BlockMean
from server.aggregation.optimizer import ServerOptimizer
from server.clients.checks import check_norm
from server.clients.replies import MOST, SiteChangedError, read_training_reply
from server.clients.roster import Roster, listed
from server.strategies.shared.round_report import RoundReport

log = logging.getLogger(__name__)
TTL_MARGIN = 10.0
"""Seconds from the end of a round until its messages expire. With this margin, the round ends before the message
expires, even if a busy server polls seconds too late."""
FIGURES = ("num_examples", "losses", "unreadable", "device", "seconds")
"""The fields of a client's reply that go into the report of the round."""


class MultimodalStrategy(Strategy):
    """A Flower strategy for clients with different modalities.

    Each client receives and returns only the shared block and the blocks of its modalities. A subclass defines how an
    update enters the mean. It may collect the updates until all have come. Everything else is final.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.roster = Roster(experiment)
        self.report = RoundReport()
        self.wanted = experiment.federation.sample or experiment.data.clients
        """The number of sites in a round."""
        self._round = 0
        self._received: Params = {}
        self._sent: dict[frozenset[Modality], Params] = {}
        self._mean = BlockMean()
        self._usable: dict[str, dict[str, Any]] = {}
        self._norms: list[float] = []
        self._most_examples = int(MOST)
        self.usual_norm = 0.0
        """The median norm of the updates of the last round."""
        optimizer = experiment.federation.optimizer
        self._optimizer = ServerOptimizer(optimizer) if optimizer else None

    @abstractmethod
    def contribute(self, mean: BlockMean, update: Update, received: Mapping[str, Tensor]) -> None:
        """Add one client's update to the mean. received: the global parameters of all blocks at the round's start."""

    def use(self, device: torch.device) -> None:
        """Compute on a device of the server from now on. By default, do nothing: means are computed on the
        processor."""

    def finish(self, mean: BlockMean) -> dict[str, Any]:
        """Complete the mean after the last update. Returns figures for the round's report. By default, do nothing."""
        return {}

    def state(self) -> Params:
        """The state that the strategy keeps from round to round, for a checkpoint."""
        return self._optimizer.state() if self._optimizer else {}

    def restore(self, state: Params) -> None:
        """Restore the result of `state`."""
        if self._optimizer:
            self._optimizer.restore(state)

    @property
    def round(self) -> int:
        """The number of the latest round."""
        return self._round

    @property
    def task(self) -> Task:
        """The task, with the classes of the federation."""
        return task_of(self.experiment.task, self.roster.classes or ())

    @property
    def sites(self) -> dict[int, Site]:
        """The sites that can be sampled, by node."""
        return self.roster.free

    @property
    def needed(self) -> int:
        """The fewest usable replies of a round."""
        return self.experiment.federation.needed(self.wanted)

    def shortage(self) -> dict[Modality, int]:
        """By modality, the number of usable replies that are still missing from its holders, where it is not 0."""
        held = Counter(m for figures in self._usable.values() for m in figures["modalities"])
        minimum = self.experiment.federation.min_holders
        return {m: count - held[m] for m, count in sorted(minimum.items()) if count > held[m]}

    def satisfied(self) -> bool:
        """Whether the replies so far are enough for a round."""
        return len(self._usable) >= self.needed and not self.shortage()

    def candidates(self) -> list[int]:
        """The nodes that can still be sampled in this round, in the round's order.

        The order is a function of the seed, the round and the names of the free sites. Nodes that have replied are not
        candidates, whether their reply was usable or not, because they would send the same reply again.
        """
        nodes = sorted(self.sites, key=lambda node: self.sites[node].name)
        order = rng(self.experiment.seed, "sample", self._round).permutation(len(nodes))
        told = self._usable.keys() | self.report.rejected.keys()
        return [nodes[i] for i in order if self.sites[nodes[i]].name not in told]

    def can_satisfy(self) -> bool:
        """Whether usable replies of all candidates would be enough for a round."""
        nodes = self.candidates()
        holders = Counter(m for node in nodes for m in self.sites[node].modalities)
        enough = len(self._usable) + len(nodes) >= self.needed
        return enough and all(holders[m] >= count for m, count in self.shortage().items())

    def sample(self) -> list[int]:
        """The nodes of the next messages, by name of the site.

        The sample first covers the holders that each modality still needs, then any nodes up to the wanted number.
        """
        nodes = self.candidates()
        chosen: list[int] = []
        for modality, count in self.shortage().items():
            holders = [node for node in nodes if modality in self.sites[node].modalities]
            already = len([node for node in chosen if node in holders])
            chosen += [node for node in holders if node not in chosen][: max(0, count - already)]
        room = max(0, self.wanted - len(self._usable) - len(chosen))
        chosen += [node for node in nodes if node not in chosen][:room]
        return sorted(chosen, key=lambda node: self.sites[node].name)

    def begin_round(self, server_round: int, arrays: ArrayRecord) -> None:
        """Reset the state of the round before. arrays: the global parameters."""
        self._round, self._received = server_round, wire.unpack(arrays)
        self.report, self._mean, self._usable, self._sent = RoundReport(), BlockMean(), {}, {}
        self._norms = []
        settings = self.experiment
        if self.sites and (ratio := settings.federation.max_weight) is not None:
            self._most_examples = max(1, int(ratio * median(site.num_examples for site in self.sites.values())))
        self.wanted = settings.federation.sample or max(settings.data.clients, len(self.sites))

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message to each sampled node, with the blocks that the node holds.

        Messages for the same blocks share one record. A second call within a round samples other nodes, or nodes that
        did not reply.
        """
        if not self.sites:
            settings = self.experiment.federation
            self.roster.gather(grid, self.experiment.data.clients, settings.wait_seconds)
        if server_round != self._round:
            self.begin_round(server_round, arrays)
        self.report.attempts += 1
        packed: dict[frozenset[str], ArrayRecord] = {}
        messages = []
        for node in self.sample():
            site = self.sites[node]
            held = site.modalities
            if held not in packed:
                packed[held] = wire.pack(self._blocks(held), self.experiment.wire.dtype)
            told = {**for_clients(self.experiment), "round": server_round, "modalities": sorted(held)}
            content = wire.record(told, packed[held])
            self.report.sent(site.name, wire.size(content), self._block_bytes(held))
            messages.append(
                Message(
                    content,
                    dst_node_id=node,
                    message_type="train",
                    group_id=str(server_round),
                    ttl=self.experiment.federation.round_seconds + TTL_MARGIN,
                )
            )
        return messages

    def _blocks(self, held: frozenset[Modality]) -> Params:
        """The blocks that a client with these modalities receives, in the transmitted precision."""
        if held not in self._sent:
            dtype = wire.DTYPES[self.experiment.wire.dtype]
            blocks = select(self._received, held)
            self._sent[held] = {name: value.to(dtype).to(torch.float32) for name, value in blocks.items()}
        return self._sent[held]

    def _block_bytes(self, held: frozenset[Modality]) -> Counter[str]:
        """By block, the bytes of the parameters of a client with these modalities."""
        count: Counter[str] = Counter()
        for name, value in self._blocks(held).items():
            count[block_of(name)] += value.numel() * wire.DTYPES[self.experiment.wire.dtype].itemsize
        return count

    def lose(self, node: int, reason: str) -> None:
        """Note that a node did not reply: it must introduce itself again before it is sampled."""
        self.report.failed[self.sites[node].name] = reason
        self.roster.lose(node, reason)

    def receive(self, message: Message) -> None:
        """Add a reply to the mean if it passes the checks. Otherwise, note its site and the reason."""
        node = message.metadata.src_node_id
        site = self.sites.get(node)
        if site is None or site.name not in self.report.bytes_to:
            log.warning("node %d sent a reply without a message to it", node)
            return
        try:
            update, figures = self._checked(message, site)
        except WireError as error:
            log.warning("site %s: %s", site.name, error)
            self.report.failed[site.name] = self.report.rejected[site.name] = self._explained(str(error))
            return
        except SiteChangedError as change:
            self.lose(node, str(change))
            return
        self.report.failed.pop(site.name, None)
        self._usable[site.name] = figures
        self.contribute(self._mean, update, self._received)

    def _explained(self, reason: str) -> str:
        """A site's reason. If its training diverged, the text adds the sites whose noise may be the cause."""
        noisy = [f"{site.name} ({site.local_dp})" for site in self.roster.known.values() if site.local_dp]
        if DIVERGED not in reason or not noisy:
            return reason
        return f"{reason}; a more likely cause is the noise that policies of sites add to updates: {', '.join(noisy)}"

    def _checked(self, message: Message, site: Site) -> tuple[Update, dict[str, Any]]:
        """A reply's update and figures.

        Raises WireError with the reason to refuse it, SiteChangedError when the site must introduce itself again.
        """
        said, validation = read_training_reply(
            wire.read_body(message), self._round, site, task_of(self.experiment.task, site.classes)
        )
        sent, settings = self._blocks(site.modalities), self.experiment.wire
        params, start = wire.read_params(message, sent, settings.dtype), sent
        if settings.delta:  # the unrounded model, so that the rounding of the sent model does not change the new model
            start = select(self._received, site.modalities)
            params = {name: valid(name, start[name] + value) for name, value in params.items()}
        wire.check_variances(params)
        update = Update(site.name, site.modalities, params, min(said.num_examples, self._most_examples))
        self._norms.append(check_norm(update, start, self.experiment.federation, self.usual_norm))
        figures = {name: getattr(said, name) for name in FIGURES} | {"validation": validation}
        return update, figures | {"modalities": sorted(site.modalities), "bytes_up": wire.size(message.content)}

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The new global parameters, from every reply that passes the checks, and the mean losses as metrics.

        Raises RunError, with the sites concerned, when fewer replies pass than `federation.min_replies` or
        `min_holders` require.
        """
        for message in replies:
            if not message.has_error():
                self.receive(message)
        if not self.satisfied():
            raise RunError(self.too_few())
        self.report.failed |= self._silent()
        for site, figures in sorted(self._usable.items()):
            self.report.used(site, figures)
            self.report.block_bytes["up"] += self._block_bytes(frozenset(figures["modalities"]))
        self._merge_figures()
        self.report.aggregation = self.finish(self._mean)
        params = self._mean.result(self._received)
        self._mean = BlockMean()
        self.usual_norm, self._norms = median(self._norms) if self._norms else self.usual_norm, []
        if self._optimizer is not None:
            params = self._optimizer.step(server_round, self._received, params, self._learned())
        return wire.pack(params), MetricRecord(dict(self.report.losses))

    def too_few(self, when: str = "") -> str:
        """The message about too few replies: their number, the reason for each site without a usable reply, advice."""
        lacking = "".join(f"; modality {m} needs {count} more" for m, count in self.shortage().items())
        reasons = self._silent() | self.roster.refused | self.roster.lost | self.report.failed
        where = f"round {self._round}" if self._round else "introductions"
        came = f"{len(self._usable)} received, {len(self.candidates())} more possible {when}".strip()
        head = f"{where}: too few usable replies: {came}, needed: {self.needed}{lacking}"
        return f"{head}{listed(reasons)}{self._advice()}"

    def _advice(self) -> str:
        """Advice by option."""
        settings = self.experiment.federation
        here = len(self._usable) + len(self.candidates())
        said = []
        if 0 < here < self.needed:
            said.append(f"a new run with --set federation.min_replies={here} continues with this number of sites")
        if shortage := self.shortage():
            said.append(f"lower federation.min_holders in a new run: too few sites have {', '.join(shortage)}")
        if self.roster.refused and here < self.needed:
            said.append("correct the reasons at the refused sites or in the experiment, and start the run again")
        if self.roster.lost or here + len(self.roster.refused) < self.needed:
            said.append(
                f"raise federation.wait_seconds, now {settings.wait_seconds:g}, to give sites more time to connect; a "
                "node that was killed can reconnect after a minute"
            )
        if self._silent():
            said.append(
                f"raise federation.round_seconds, now {settings.round_seconds:g}, to give sites more time to reply"
            )
        if self._round > 1:
            said.append(f"fedmosaic run ... --resume continues after round {self._round - 1}, which is saved")
        return "".join(f"\n  what to do: {one}" for one in said)

    def _silent(self) -> dict[str, str]:
        """The sites that received a message and have neither replied nor failed."""
        told = self._usable.keys() | self.report.failed.keys()
        return {name: "no reply" for name in self.report.bytes_to if name not in told}

    def _learned(self) -> set[str]:
        """The names of the parameters that have gradients in training."""
        model = build_model(self.experiment, len(self.roster.classes or ()))
        return {name for name, _ in model.named_parameters()}

    def _merge_figures(self) -> None:
        """Add up the validation counts, and average each loss over the clients that have the term, by examples.

        The bound `max_weight` applies to both, so no single site can decide them with a large number of examples.
        """
        sums: dict[str, tuple[float, int]] = {}
        most = self._most_examples
        for figures in self.report.clients.values():
            if all(tally.examples <= most for tally in figures["validation"].values()):
                self.report.validation = merge(self.report.validation, figures["validation"])
            weight = min(figures["num_examples"], most)
            for name, value in figures["losses"].items():
                total, count = sums.get(name, (0.0, 0))
                sums[name] = (total + value * weight, count + weight)
        self.report.losses = {name: total / count for name, (total, count) in sorted(sums.items())}

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """No messages, because clients evaluate the model that they receive for training. A round is one exchange."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """No metrics, see `configure_evaluate`."""
        return None

    def summary(self) -> None:
        """Log the strategy and its sites."""
        log.info("%s over %d sites", type(self).__name__, len(self.sites))


class StrategyOptions(Component):
    """Base of the strategies' options.

    needs_probe: whether the strategy compares models on the server's probe set.
    """

    needs_probe: ClassVar[bool] = False

    @abstractmethod
    def build(self, experiment: Experiment, probe: Path | None) -> MultimodalStrategy:
        """The strategy for an experiment. probe: the folder of the server's probe shard, if the strategy needs one."""
