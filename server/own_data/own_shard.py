"""A shard of the server, with a model that reads it."""

from pathlib import Path

import torch

from common.build import build_model
from common.config.experiment import Experiment
from common.data.loader import Loaded, load
from common.data.prepared.made import Made
from common.data.shard import Shard
from common.encoders.base import Encoder
from common.errors import ShardError
from common.findings import too_many_unreadable
from common.modality import Modality
from common.types import CPU, Batch


class OwnShard:
    """The examples of a shard in memory, with a model of the experiment. If sites use different encoders, the examples
    are included once per encoder.

    Raises ShardError when the shard cannot be used.
    """

    def __init__(self, experiment: Experiment, folder: Path, device: torch.device = CPU) -> None:
        shard = Shard.open(folder)
        shard.check_task(experiment.task.name)
        self.folder, self.classes = folder, tuple(shard.info.classes)
        self.model = build_model(experiment, len(self.classes)).to(device)
        self.batch_size = max(256, experiment.train.batch_size)
        self.examples = joined(
            [
                self._readable(load(shard, encoders, made=made), experiment.data.max_unreadable)
                for encoders, made in self._ways(experiment)
            ]
        )

    def use(self, device: torch.device) -> None:
        """Compute on a device from now on."""
        self.model.to(device)

    def _readable(self, loaded: Loaded, most: float) -> Batch:
        if why := too_many_unreadable(loaded.findings, most):
            raise ShardError(f"shard {self.folder}: {why}")
        return loaded.examples

    def _ways(self, experiment: Experiment) -> list[tuple[dict[Modality, Encoder], dict[Modality, Made]]]:
        """Sets of encoders that together include every alternative of each modality, and how they are made. Without
        mixed encoders, this is one set."""
        ways = {m: self.model.encoder(m).alternatives() for m in self.model.modalities}
        longest = max(len(alternatives) for alternatives in ways.values())
        numbers = [{m: number % len(every) for m, every in ways.items()} for number in range(longest)]
        return [
            (
                {m: ways[m][number] for m, number in chosen.items()},
                {m: Made(experiment.model.encoders[m], number) for m, number in chosen.items()},
            )
            for chosen in numbers
        ]


def joined(parts: list[Batch]) -> Batch:
    """The concatenated examples of all parts. The parts have the same modalities."""
    if len(parts) == 1:
        return parts[0]
    return Batch(
        {m: torch.cat([part.inputs[m] for part in parts]) for m in parts[0].modalities},
        {m: torch.cat([part.origin[m] for part in parts]) for m in parts[0].modalities},
        torch.cat([part.labels for part in parts]),
        torch.cat([part.keys for part in parts]),
    )
