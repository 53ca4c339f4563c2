"""What a site does with a message: everything that touches its examples starts here."""

import time
from dataclasses import asdict
from pathlib import Path

from flwr.app import Message, RecordDict

from client.train import train
from common import wire
from common.blocks import get_params, select, set_params
from common.build import build_model, deterministic
from common.config import Experiment, from_json
from common.data.loader import Loaded, load
from common.data.shard import Shard
from common.metrics import evaluate
from common.models.base import MultimodalModel


def introduce(message: Message, folder: Path, site: str) -> RecordDict:
    """Who the site is. Its files are read once here, so that a shard without usable examples is refused at the start.

    Raises ShardError.
    """
    experiment = from_json(str(wire.read_body(message)["experiment"]))
    shard, _model, loaded = _open(experiment, folder)
    return wire.record(
        {
            "site": site or shard.info.site,
            "modalities": loaded.examples.modalities,
            "classes": shard.info.classes,
            "num_examples": len(loaded.ids),
            "unreadable": dict(loaded.unreadable),
            "unusable": loaded.unusable,
        }
    )


def _open(experiment: Experiment, folder: Path) -> tuple[Shard, MultimodalModel, Loaded]:
    """The shard, a model with the experiment's initial weights, and the examples as its encoders prepare them."""
    shard = Shard.open(folder)
    model = build_model(experiment, len(shard.info.classes))
    return shard, model, load(shard, {m: model.encoder(m) for m in model.modalities})


def train_round(message: Message, folder: Path, site: str) -> RecordDict:
    """One round at this site.

    Raises ShardError, TrainingError, WireError.
    """
    deterministic()
    started = time.perf_counter()
    content = wire.read_body(message)
    experiment = from_json(str(content["experiment"]))
    shard, model, loaded = _open(experiment, folder)
    set_params(model, wire.read_params(message))
    training, validation = loaded.split(experiment.data.validation, experiment.seed)
    prepared = time.perf_counter()
    tallies = evaluate(model, validation, experiment.train.batch_size)
    evaluated = time.perf_counter()
    site = site or shard.info.site
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
            "unreadable": dict(loaded.unreadable),
            "seconds": {
                "load": prepared - started,
                "evaluate": evaluated - prepared,
                "train": time.perf_counter() - evaluated,
            },
        },
        wire.pack(select(get_params(model), held), experiment.wire.dtype),
    )
