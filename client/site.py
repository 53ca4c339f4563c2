"""A site: what it does with a message. Everything that touches its examples starts here."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path

from flwr.app import Message, MessageType, RecordDict

from client.train import train
from common import wire
from common.blocks import get_params, select, set_params
from common.build import build_model, deterministic
from common.config import Experiment, from_json
from common.data.loader import Loaded, load
from common.data.shard import Shard
from common.errors import FedmosaicError, TrainingError
from common.metrics import evaluate
from common.models.base import MultimodalModel


@dataclass(frozen=True)
class Opened:
    """A site's shard, a model with the experiment's initial weights, and the examples as its encoders prepare them."""

    shard: Shard
    model: MultimodalModel
    loaded: Loaded


class Site:
    """A shard folder and the name of the site; without a name the shard's own holds.

    The examples are prepared once for each set of encoders, and kept: who keeps the site keeps them.
    """

    def __init__(self, folder: Path, name: str = "") -> None:
        self.folder, self._name = folder, name
        self._prepared: dict[str, tuple[Shard, Loaded]] = {}

    def answer(self, message: Message) -> RecordDict:
        """The reply to a query or a training message. A mistake that is this project's own is answered with its reason,
        so that the server can name the site; anything else is raised."""
        try:
            if message.metadata.message_type == MessageType.QUERY:
                return self.introduce(message)
            return self.train_round(message)
        except FedmosaicError as error:
            said = {"site": self._name or self.folder.name, "error": f"{type(error).__name__}: {error}"}
            return wire.record(said)

    def introduce(self, message: Message) -> RecordDict:
        """Who the site is. Its files are read here, so that a shard without usable examples is refused at the start.

        Raises ShardError, WireError.
        """
        experiment = from_json(str(wire.read_body(message)["experiment"]))
        here = self.open(experiment)
        return wire.record(
            {
                "site": self._name or here.shard.info.site,
                "modalities": here.loaded.examples.modalities,
                "classes": here.shard.info.classes,
                "num_examples": len(here.loaded.ids),
                "unreadable": dict(here.loaded.unreadable),
                "unusable": here.loaded.unusable,
            }
        )

    def train_round(self, message: Message) -> RecordDict:
        """One round: validate the received model, train it, return the blocks the site holds.

        Raises ShardError, TrainingError, WireError.
        """
        deterministic()
        started = time.perf_counter()
        content = wire.read_body(message)
        experiment = from_json(str(content["experiment"]))
        here = self.open(experiment)
        if sorted(here.loaded.examples.modalities) != content.get("modalities"):
            name = self._name or here.shard.info.site
            return wire.record({"site": name, "error": "its modalities have changed", "introduce": True})
        model = here.model
        expected = select(get_params(model), here.loaded.examples.modalities)
        set_params(model, wire.read_params(message, expected, experiment.wire.dtype))
        training, validation = here.loaded.split(experiment.data.validation, experiment.seed)
        if experiment.data.complete_only:
            training = training.complete(experiment.modalities)
            if not len(training):
                raise TrainingError("no example has every modality, and data.complete_only is set")
        prepared = time.perf_counter()
        tallies = evaluate(model, validation.observed(), experiment.train.batch_size)
        evaluated = time.perf_counter()
        site = self._name or here.shard.info.site
        losses = train(model, training, experiment, int(content["round"]), site)
        held = training.modalities
        return wire.record(
            {
                "site": site,
                "round": content["round"],
                "modalities": held,
                "num_examples": len(training),
                "losses": losses,
                "validation": {name: asdict(tally) for name, tally in tallies.items()},
                "unreadable": dict(here.loaded.unreadable),
                "seconds": {
                    "load": prepared - started,
                    "evaluate": evaluated - prepared,
                    "train": time.perf_counter() - evaluated,
                },
            },
            wire.pack(select(get_params(model), held), experiment.wire.dtype),
        )

    def shard(self) -> Shard:
        """The shard's metadata; the files are not read.

        Raises ShardError.
        """
        return Shard.open(self.folder)

    def open(self, experiment: Experiment) -> Opened:
        """What is needed to train or evaluate here.

        Raises ShardError.
        """
        prepared = str([sorted(experiment.model.encoders.items()), sorted(experiment.completion.items())])
        shard, loaded = self._prepared.get(prepared) or (self.shard(), None)
        model = build_model(experiment, len(shard.info.classes))
        if loaded is None:
            loaded = load(shard, {m: model.encoder(m) for m in model.modalities}, experiment.completion)
            self._prepared[prepared] = shard, loaded
        return Opened(shard, model, loaded)
