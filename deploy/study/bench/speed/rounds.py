"""The cost of a round without training: a SuperLink and two SuperNodes as real processes on this machine."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from common.config.experiment import Experiment
from common.split.make import make_shards
from deploy.engines import launch as engines
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample
from deploy.study.bench.speed.stock_run import stock_rounds
from deploy.study.bench.speed.workload import digits
from server.record.run_folder import read_rounds

EXAMPLES = 2


class EmptyRound(Measurement):
    """The seconds from round to round, without the first round. Ours trains a tiny model on two examples, and writes
    model and checkpoint. Stock's client adds 1 to every value. Both clients use torch. Neither evaluates the round."""

    name: ClassVar[str] = "round"
    what: ClassVar[str] = "fixed cost of a round, SuperLink + 2 SuperNodes, no-op training"
    unit: ClassVar[str] = "s"
    ratio: ClassVar[str] = "ours / stock"
    goal: ClassVar[Goal] = Goal("at most", 1 / 6)
    tensors: ClassVar[int] = 2
    values: ClassVar[int] = 1000

    def experiment(self, rounds: int) -> Experiment:
        """The experiment of our run."""
        return digits(2, rounds, EXAMPLES)

    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Yield one round of each per repeat."""
        stock = stock_rounds(self.tensors, self.values, repeats, work / "stock")
        ours = _our_rounds(self.experiment(repeats + 1), work)
        for theirs, mine in zip(stock, ours, strict=True):
            yield Sample(theirs, mine, mine / theirs)


class LargeRound(EmptyRound):
    """The same with 50 MB in about 400 tensors: a joint encoder of 22 narrow layers."""

    name: ClassVar[str] = "round-50mb"
    what: ClassVar[str] = "the same with 50 MB in 400 tensors"
    goal: ClassVar[Goal] = Goal("at most", 1 / 5)
    tensors: ClassVar[int] = 400
    values: ClassVar[int] = 12_500_000

    def experiment(self, rounds: int) -> Experiment:
        """The experiment of our run, with co-attention: the joint encoder with the plain loss."""
        joint: dict[str, Any] = {"name": "joint", "width": 106, "heads": 2, "joint_heads": 2, "depth": 22}
        encoders = {
            "audio": {"name": "spectrogram", "n_mels": 32, "width": 32},
            "image": {"name": "image", "size": 28, "width": 32},
        }
        model = {"encoders": encoders, "architecture": joint}
        return digits(2, rounds, EXAMPLES, method="co-attention", model=model)


def _our_rounds(experiment: Experiment, work: Path) -> list[float]:
    """The seconds of each round after the first, with the engine `processes`."""
    make_shards(experiment, work / "shards")
    run = work / "run"
    plan = engines.Plan("processes", experiment, work / "shards", run_folder=run.resolve())
    with engines.launch(plan) as launched:
        for _ in launched.wait():
            pass
    ended = [line["seconds"]["ended"] for line in read_rounds(run)[1:]]
    return [after - before for before, after in pairwise(ended)]
