"""A site: what it does with a message. Everything that touches its examples starts here, and everything that leaves
passes `Site._leave`, where the site's own policy is applied."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flwr.app import Message, MessageType, RecordDict

from client.policy import Policy, read_policy
from client.request import Request, packages, read_body, read_request
from client.train import train
from common.blocks import Params, learned, select, set_params
from common.build import deterministic, reused_model
from common.config import plugins
from common.config.experiment import Experiment, Wire
from common.data.loader import Loaded, load
from common.data.shard import Shard
from common.encoders.base import Encoder
from common.errors import FedmosaicError, ShardError, TrainingError
from common.exchange import wire
from common.findings import too_many_unreadable
from common.frozen.pretrained import only
from common.metrics import evaluate
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import derive
from common.types import Batch

log = logging.getLogger(__name__)

LONGEST = 4000
"""Characters of a reason."""
KEPT = 4
"""Sets of encoders whose prepared examples are kept at most: a resident worker sees many experiments."""


@dataclass(frozen=True)
class Opened:
    """A site's shard, a model with the experiment's initial weights, and the examples as its encoders prepare them."""

    shard: Shard
    model: MultimodalModel
    loaded: Loaded


@dataclass(frozen=True)
class Trained:
    """The site's blocks as they were received and as they are now, and how they travel."""

    received: Params
    now: Params
    wire: Wire


class ChangedError(FedmosaicError):
    """A site that is no longer what it introduced itself as."""


class Site:
    """A shard folder, the name of the site (without one the shard's own holds) and the file of its policy, if any.

    allowed: the plugins of a site without a policy's file, each as name==version; None: those of the environment.

    A site prepares its examples once for each set of encoders and keeps the last few sets.
    """

    def __init__(
        self, folder: Path, name: str = "", policy: Path | None = None, allowed: Sequence[str] | None = None
    ) -> None:
        self.folder, self._name, self._policy_file, self._allowed = folder, name, policy, allowed
        self._policy = Policy()
        self._touched = False
        self._read: tuple[object, Shard] | None = None
        self._prepared: dict[str, Loaded] = {}

    def answer(self, message: Message) -> RecordDict:
        """The reply to a query or a training message. A mistake that is this project's own is answered with its reason,
        so that the server can name the site; anything else is raised, unless the policy keeps such reasons."""
        came = time.monotonic()
        reply = self._answered(message)
        self._policy.hold(came)
        return reply

    def _answered(self, message: Message) -> RecordDict:
        self._touched = False
        try:
            self._policy = read_policy(self._policy_file, self._allowed)
            asked = read_body(message)
            with only(self._policy.models), plugins.only(self._policy.admit(packages(asked))):
                if message.metadata.message_type == MessageType.QUERY:
                    return self._leave(self.introduce(read_request(asked, training=False)))
                return self._leave(*self.train_round(read_request(asked, training=True), message))
        except ChangedError as error:
            return refusal(self._called, str(error), introduce=True)
        except Exception as error:
            if isinstance(error, FedmosaicError) or not self._policy.metrics:
                log.warning("refused: %s", error)
                said = self._policy.reason(error, self._touched).replace(str(self.folder), self.folder.name)
                return refusal(self._called, said)
            raise

    @property
    def _called(self) -> str:
        """The site's name, as far as it is known: of a shard that cannot be opened, its folder's."""
        return self._name or (self._read[1].info.site if self._read else self.folder.name)

    def _leave(self, said: Mapping[str, Any], trained: Trained | None = None) -> RecordDict:
        """The reply, as far as the policy lets it go: the one place that anything leaves the site from."""
        figures = self._policy.figures(said)
        if trained is None:
            return wire.record(figures)
        params = self._policy.update(trained.received, trained.now)
        if trained.wire.delta:
            params = {name: value - trained.received[name] for name, value in params.items()}
        return wire.record(figures, wire.pack(params, trained.wire.dtype))

    def introduce(self, request: Request) -> dict[str, Any]:
        """Who the site is. Its files are read here, so that a shard without usable examples is refused at the start.

        Raises ShardError, PolicyError.
        """
        self._permit(request.experiment)
        self._policy.count_introduction()
        here = self.open(request.experiment)
        if why := too_many_unreadable(here.loaded.findings, request.experiment.data.max_unreadable):
            raise ShardError(why)
        self._policy.check_examples(len(self._split(request.experiment, here)[0]))
        return {
            "site": self._name or here.shard.info.site,
            "modalities": here.loaded.examples.modalities,
            "classes": here.shard.info.classes,
            "num_examples": len(here.loaded.ids),
            "local_dp": str(self._policy.local_dp or ""),
            "findings": {m: found.model_dump() for m, found in here.loaded.findings.items()},
            "unusable": here.loaded.unusable,
        }

    def train_round(self, request: Request, message: Message) -> tuple[dict[str, Any], Trained]:
        """One round: validate the received model, train it; figures, and the blocks the site holds.

        Raises ShardError, TrainingError, WireError, PolicyError, ChangedError.
        """
        deterministic()
        started = time.perf_counter()
        experiment = request.experiment
        self._permit(experiment)
        self._policy.count_update()
        here = self.open(experiment)
        model, held = here.model, here.loaded.examples.modalities
        if held != request.modalities:
            raise ChangedError("its modalities have changed")
        training, validation = self._split(experiment, here)
        self._policy.check_examples(len(training))
        received = wire.read_params(message, select(learned(model), held), experiment.wire.dtype)
        wire.check_variances(received)
        set_params(model, received)
        prepared = time.perf_counter()
        size, tallies = experiment.train.batch_size, {}
        if self._policy.validates:
            tallies = evaluate(model, validation.observed(), size)
        evaluated = time.perf_counter()
        site = self._name or here.shard.info.site
        losses = self._train(model, training, request, site, received)
        said = {
            "site": site,
            "round": request.round,
            "modalities": held,
            "num_examples": len(training),
            "losses": losses,
            "validation": {name: asdict(tally) for name, tally in tallies.items()},
            "unreadable": here.loaded.unreadable,
            "seconds": {
                "load": prepared - started,
                "evaluate": evaluated - prepared,
                "train": time.perf_counter() - evaluated,
            },
        }
        return said, Trained(received, select(learned(model), held), experiment.wire)

    def _train(
        self, model: MultimodalModel, training: Batch, request: Request, site: str, received: Params
    ) -> dict[str, float]:
        """Train the model in place; the losses.

        Under local differential privacy, training that fails leaves the model as it was received: a refusal, which has
        no noise, would tell that of the examples.

        Raises TrainingError.
        """
        try:
            return train(model, training, request.experiment, request.round, site)
        except TrainingError as error:
            if self._policy.local_dp is None:
                raise
            log.error("round %d: %s; the update that leaves is noise alone", request.round, error)
            set_params(model, received)
            return {}

    def _permit(self, experiment: Experiment) -> None:
        """Raises PolicyError when the policy forbids what is asked for, before any example is read."""
        method = experiment.component("method")
        self._policy.check_method(experiment.method["name"], method.counts_labels)
        self._policy.check_updates()

    def _split(self, experiment: Experiment, here: Opened) -> tuple[Batch, Batch]:
        """Training and validation part.

        Raises TrainingError when there is nothing to train on.
        """
        training, validation = here.loaded.split(experiment.data.validation, experiment.seed, self._policy.secret)
        if experiment.data.complete_only:
            training = training.complete(experiment.modalities)
            if not len(training):
                raise TrainingError("no example has every modality, and data.complete_only is set")
        return training, validation

    def shard(self) -> Shard:
        """The shard's metadata, as far as the policy lets it take part; the files are not read.

        Raises ShardError, PolicyError.
        """
        return self._policy.part_of(Shard.open(self.folder))

    def open(self, experiment: Experiment) -> Opened:
        """What is needed to train or evaluate here.

        Raises ShardError, PolicyError.
        """
        allowed = self._policy.modalities
        self._touched = True
        shard = self._metadata()
        model = reused_model(experiment, len(shard.info.classes))
        encoders = {
            m: self._own(model.encoder(m), experiment.seed, m, shard)
            for m in model.modalities
            if allowed is None or m in allowed
        }
        completion = {m: how for m, how in experiment.completion.items() if m in encoders}
        asked = [(m, experiment.model.encoders[m], number) for m, (number, _) in encoders.items()]
        prepared = str([asked, sorted(completion.items())])
        loaded = self._prepared.get(prepared)
        if loaded is None:
            loaded = load(shard, {m: encoder for m, (_, encoder) in encoders.items()}, completion)
            self._prepared[prepared] = loaded
            if len(self._prepared) > KEPT:
                del self._prepared[next(iter(self._prepared))]
        return Opened(shard, model, loaded)

    def _metadata(self) -> Shard:
        """The shard as the policy of this message lets it take part, read anew when that is another part."""
        if self._read is None or self._read[0] != self._policy.modalities:
            self._read = self._policy.modalities, self.shard()
            self._prepared.clear()
        return self._read[1]

    def _own(self, encoder: Encoder, seed: int, modality: Modality, shard: Shard) -> tuple[int, Encoder]:
        """The encoder as this site uses it, with its number: of several, the one that seed and name decide."""
        ways = encoder.alternatives()
        number = derive(seed, "encoder", modality, self._name or shard.info.site) % len(ways)
        return number, ways[number]


def refusal(site: str, reason: str, introduce: bool = False) -> RecordDict:
    """The reply of a site that does not do what it was asked. introduce: it wants to introduce itself again first."""
    short = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} ..."
    return wire.record({"site": site, "error": short} | ({"introduce": True} if introduce else {}))
