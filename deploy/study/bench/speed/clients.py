"""Clients per second with the same model and data: the in-process engine, a plain PyTorch loop, Flower's simulation."""

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from client.site import Site
from common.build import build_model
from common.config.experiment import Experiment
from common.data.loader import load
from common.data.shard import Shard
from common.models.base import MultimodalModel
from common.seeding import torch_rng
from common.split.make import client_name, make_shards
from common.types import Batch
from deploy.engines.in_process import InProcessGrid
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample
from deploy.study.bench.speed.stock_run import stock_simulation
from deploy.study.bench.speed.workload import PlainMean, digits, train_plainly
from server.record.run_folder import RunFolder, read_rounds
from server.rounds.federation import Federation

ROUNDS = 5
"""Rounds per repeat, of the engine and of the loop."""


class Clients(Measurement):
    """Times of rounds without evaluation, because the loop has none. Everything else in a round of the engine counts:
    messages, checks, records, checkpoint and model on disk. The first round of each is not counted."""

    name: ClassVar[str] = "inprocess"
    what: ClassVar[str] = "clients/s of the in-process engine; stock: Flower's simulation; bare: a PyTorch loop"
    unit: ClassVar[str] = "clients/s"
    ratio: ClassVar[str] = "ours / bare"
    goal: ClassVar[Goal] = Goal("at least", 0.9)

    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Time Flower's rounds first, then a few rounds of the engine and of the loop alternately."""
        clients, examples = (3, 16) if self.small else (16, 72)
        chosen = digits(clients, repeats + 1, examples)
        make_shards(chosen, work / "shards")
        folders = [work / "shards" / client_name(index) for index in range(clients)]
        simulated = [0.0] * repeats if self.small else stock_simulation(chosen, folders, repeats, work / "stock")
        model = build_model(chosen, 10)
        data = [_in_memory(model, folder) for folder in folders]
        _loop(chosen, data, 0)
        for stock, repeat in zip(simulated, range(repeats), strict=True):
            ours = _in_process(chosen, folders, work / f"run-{repeat}")
            bare = clients / fmean(_loop(chosen, data, repeat * ROUNDS + number) for number in range(1, ROUNDS + 1))
            yield Sample(clients / stock if stock else 0.0, ours, ours / bare, bare)


def _in_memory(model: MultimodalModel, folder: Path) -> Batch:
    return load(Shard.open(folder), {m: model.encoder(m) for m in model.modalities}).examples.gathered()


def _loop(experiment: Experiment, data: list[Batch], number: int) -> float:
    """The seconds of a round: every client trains a model from the same state, and the states are averaged."""
    started = time.perf_counter()
    model, mean = build_model(experiment, 10), PlainMean()
    begin = {name: value.clone() for name, value in model.state_dict().items()}
    for index, examples in enumerate(data):
        model.load_state_dict(begin)
        train_plainly(model, examples, torch_rng(1, "bench order", number, index))
        mean.add(model)
    model.load_state_dict(mean.result())
    return time.perf_counter() - started


def _in_process(experiment: Experiment, folders: list[Path], run: Path) -> float:
    """Clients per second in the rounds after the first."""
    few = experiment.model_copy(
        update={"federation": experiment.federation.model_copy(update={"rounds": 1 + ROUNDS})}  # the first warms up
    )
    Federation(few, InProcessGrid([Site(folder) for folder in folders]), None, RunFolder(run, few)).run()
    return _rate(run, len(folders))


def _rate(run: Path, clients: int) -> float:
    seconds = [line["seconds"]["total"] for line in read_rounds(run)[2:]]
    return float(clients * len(seconds) / sum(seconds))
