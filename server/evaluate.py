"""Evaluation of the global model on the server's own test shard."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from common.blocks import set_params
from common.build import build_model
from common.config import Experiment
from common.data.loader import load
from common.data.shard import Shard
from common.metrics import Tallies, evaluate


class TestSet:
    """The test shard in memory, with a model to evaluate parameters in.

    Raises ShardError when the shard cannot be used.
    """

    __test__ = False  # not a test of pytest's

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        shard = Shard.open(folder)
        self.classes = tuple(shard.info.classes)
        self.model = build_model(experiment, len(self.classes))
        self.batch_size = max(256, experiment.train.batch_size)
        self.examples = load(shard, {m: self.model.encoder(m) for m in self.model.modalities}).examples

    def evaluate(self, params: Mapping[str, Tensor]) -> Tallies:
        """Counts for every subset of modalities."""
        set_params(self.model, params)
        return evaluate(self.model, self.examples, self.batch_size)
