"""A client that trains a model on its examples. The worker process caches the examples."""

from functools import cache
from pathlib import Path

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from common.build import build_model
from common.config.reading import from_json
from common.data.loader import load
from common.data.shard import Shard
from common.models.base import MultimodalModel
from common.seeding import torch_rng
from common.types import Batch
from deploy.study.bench.speed.workload import train_plainly

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train one epoch from the received model."""
    torch.set_num_threads(1)
    settings, part = context.run_config, int(context.node_config["partition-id"])
    model = _model(str(settings["experiment"]))
    examples = _examples(model, f"{settings['shards']}/client-{part}")
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    number = message.content.config_records["config"]["server-round"]
    train_plainly(model, examples, torch_rng(1, "bench order", str(number), part))
    metrics = MetricRecord({"num-examples": len(examples)})
    return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)


@cache
def _model(experiment: str) -> MultimodalModel:
    return build_model(from_json(experiment), 10)


@cache
def _examples(model: MultimodalModel, folder: str) -> Batch:
    return load(Shard.open(Path(folder)), {m: model.encoder(m) for m in model.modalities}).examples.gathered()
