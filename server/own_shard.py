"""A shard that lies at the server, and a model to look at it with."""

from pathlib import Path

from common.build import build_model
from common.config import Experiment
from common.data.loader import load
from common.data.shard import Shard


class OwnShard:
    """The examples of a shard in memory, with a model of the experiment to put parameters in.

    Raises ShardError when the shard cannot be used.
    """

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        shard = Shard.open(folder)
        self.folder, self.classes = folder, tuple(shard.info.classes)
        self.model = build_model(experiment, len(self.classes))
        self.batch_size = max(256, experiment.train.batch_size)
        self.examples = load(shard, {m: self.model.encoder(m) for m in self.model.modalities}).examples
