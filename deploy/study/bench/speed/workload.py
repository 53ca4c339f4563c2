"""The small federation that the measurements share, and its training in plain PyTorch."""

from typing import Any

import torch
from torch.nn import functional as F

from common.blocks import Params
from common.config.experiment import Experiment
from common.config.reading import parse
from common.models.base import MultimodalModel
from common.types import Batch

BATCH, LR, MOMENTUM = 16, 0.05, 0.9


def digits(clients: int, rounds: int, examples: int, **changes: Any) -> Experiment:
    """FedAvg on spoken and written digits. Every client has both modalities and `examples` examples, without
    validation."""
    raw: dict[str, Any] = {
        "name": "bench-speed",
        "seed": 1,
        "data": {"set": {"name": "digits-mini"}, "clients": clients, "limit": clients * examples, "validation": 0.0},
        "model": {
            "encoders": {
                "audio": {"name": "spectrogram", "n_mels": 32, "width": 32},
                "image": {"name": "image", "size": 28, "width": 32},
            }
        },
        "method": "fedavg",
        "train": {"epochs": 1, "batch_size": BATCH, "lr": LR, "momentum": MOMENTUM, "weight_decay": 0.0},
        "federation": {"rounds": rounds, "wait_seconds": 120},
    }
    return parse(raw | changes, "bench speed")


def train_plainly(model: MultimodalModel, examples: Batch, order: torch.Generator) -> None:
    """Train one epoch with a plain PyTorch loop."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM)
    for chosen in torch.split(torch.randperm(len(examples), generator=order), BATCH):
        batch = examples.rows(chosen)
        optimizer.zero_grad()
        F.cross_entropy(model(batch), batch.labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


class PlainMean:
    """The mean of state_dicts with equal weights."""

    def __init__(self) -> None:
        self._sums: Params = {}
        self._count = 0

    def add(self, model: MultimodalModel) -> None:
        """Add a model's state."""
        self._count += 1
        for name, value in model.state_dict().items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()

    def result(self) -> Params:
        """The means."""
        return {name: value / self._count for name, value in self._sums.items()}
