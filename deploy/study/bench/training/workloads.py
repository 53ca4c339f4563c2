"""The trainings of `fedmosaic bench train`: an experiment, random prepared examples, and the same model for a plain
loop of PyTorch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from client.methods.fedmvp import FedMVP
from client.methods.shared.criterion import Criterion
from common.build import assemble
from common.config.experiment import Experiment
from common.config.reading import parse
from common.encoders.base import Encoder, FrozenEncoder, Tower
from common.models.joint import Joint, JointModel
from common.rows import Held, Rows
from common.types import Batch, Origin

CLASSES = 10
TOKENS, FEATURES = 16, 64


@dataclass(frozen=True)
class Workload:
    """A measured training.

    what: its description. experiment: the experiment of our client. examples: the number of examples. model: makes our
    model. plain: makes the module of the plain loop; its forward takes the prepared inputs by modality and the labels
    [B], and returns the loss.
    """

    what: str
    experiment: Experiment
    examples: int
    model: Callable[[], Any]
    plain: Callable[[], nn.Module]

    def batch(self) -> Batch:
        """Random prepared examples. Every example has every modality."""
        rng = torch.Generator().manual_seed(1)
        model = self.model()
        inputs = {m: _random(model.encoder(m).blank(), self.examples, rng) for m in model.modalities}
        index = {m: torch.arange(self.examples) for m in inputs}
        origin = {m: torch.full((self.examples,), int(Origin.OBSERVED)) for m in inputs}
        return Batch(
            Rows({m: Held(values) for m, values in inputs.items()}, index),
            origin,
            torch.randint(CLASSES, (self.examples,), generator=rng),
        )


def _random(blank: Tensor, count: int, rng: torch.Generator) -> Tensor:
    shape = (count, *blank.shape)
    if blank.dtype == torch.uint8:
        return torch.randint(256, shape, generator=rng, dtype=torch.uint8)
    return torch.randn(shape, generator=rng).to(blank.dtype)


def workloads(batch_size: int, epochs: int, precision: str, deterministic: bool, small: bool) -> dict[str, Workload]:
    """The workloads by name. small: sizes for tests, whose figures mean nothing."""
    train = {
        "batch_size": batch_size,
        "epochs": epochs,
        "lr": 0.01,
        "precision": precision,
        "deterministic": deterministic,
    }
    side, count = (32, 2 * batch_size) if small else (64, 4 * batch_size)
    picture = {"name": "image", "channels": 3, "size": side, "width": 64}
    sound = {"name": "spectrogram", "rate": 16000, "seconds": 1, "n_fft": 1024, "n_mels": 64}
    return {
        "resnet18": _fusion(f"ResNet-18, {side} x {side}", {**picture, "backbone": "resnet18"}, train, count),
        "resnet50": _fusion(f"ResNet-50, {side} x {side}", {**picture, "backbone": "resnet50"}, train, count // 2),
        "spectrogram": _fusion(
            "ResNet-18, log-mel spectrograms", {**sound, "width": 64, "backbone": "resnet18"}, train, count
        ),
        "features": _joint(train, count),
    }


def _experiment(encoders: Mapping[str, Any], method: str, train: Mapping[str, Any]) -> Experiment:
    raw = {
        "name": "bench-train",
        "data": {"clients": 1},
        "model": {"encoders": dict(encoders)},
        "method": method,
        "train": dict(train),
        "federation": {"rounds": 1},
    }
    return parse(raw, "bench train")


def _fusion(what: str, encoder: Mapping[str, Any], train: Mapping[str, Any], examples: int) -> Workload:
    chosen = _experiment({"a": encoder}, "fedavg", train)

    def model() -> Any:
        torch.manual_seed(1)
        return assemble(chosen.model, CLASSES)

    return Workload(f"{what}, FedAvg", chosen, examples, model, lambda: _PlainFusion(model()))


def _joint(train: Mapping[str, Any], examples: int) -> Workload:
    # the encoder of the section is replaced below, because frozen models would have to be downloaded
    chosen = _experiment({"a": {"name": "text"}, "b": {"name": "text"}}, "fedmvp", train)

    def model() -> Any:
        torch.manual_seed(1)
        return Joint().build({m: _Features() for m in ("a", "b")}, CLASSES)

    return Workload("frozen features, FedMVP's joint encoder", chosen, examples, model, lambda: _PlainJoint(model()))


class _Features(FrozenEncoder):
    """An encoder whose features exist already."""

    def __init__(self) -> None:
        super().__init__(FEATURES, TOKENS)

    @property
    def tower(self) -> Tower:
        """There is no network."""
        raise NotImplementedError

    def described(self) -> str:
        """There are no weights."""
        return "features"


class _PlainFusion(nn.Module):
    """The network and the linear layer of a model with one modality."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder: Encoder = model.encoder("a")
        self.fusion: nn.Linear = model.fusion

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """The cross entropy."""
        return F.cross_entropy(self.fusion(self.encoder(inputs["a"])), labels)


class _PlainJoint(nn.Module):
    """FedMVP's loss for complete examples. The model itself is ours, because there is no other one."""

    def __init__(self, model: JointModel) -> None:
        super().__init__()
        self.model, self.method, self.criterion = model, FedMVP(), Criterion()

    def forward(self, inputs: Mapping[str, Tensor], labels: Tensor) -> Tensor:
        """The sum of the three terms."""
        origin = {m: torch.full_like(labels, int(Origin.OBSERVED)) for m in inputs}
        host = {m: torch.full((len(labels),), int(Origin.OBSERVED)) for m in inputs}
        terms = self.method.loss(self.model, Batch(inputs, origin, labels, _host=host), self.criterion)
        return torch.stack(list(terms.values())).sum()
