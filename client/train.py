"""The training loop of a client, which all methods use."""

import logging
import math

import torch
from torch import Tensor, nn

from client.methods.base import Method, Round
from client.step import Step
from common.blocks import all_finite, learned
from common.config.experiment import Experiment, Train
from common.data.augmentation import Augmentation
from common.data.batches import batches
from common.errors import DIVERGED, TrainingError
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import seeded, torch_rng
from common.types import Batch

log = logging.getLogger(__name__)


def train(model: MultimodalModel, examples: Batch, experiment: Experiment, number: int, site: str) -> dict[str, float]:
    """Train the model in place, on its device: the shared block and the blocks of the examples' modalities. Returns the
    mean of each loss term over the last epoch.

    The order of the examples is a function of (seed, round, site), the augmentation of an example a function of (seed,
    round, epoch, site, example).

    Raises TrainingError when a loss or a parameter is no longer finite. Raises DeviceError when the device's memory is
    full.
    """
    held = frozenset(examples.modalities)
    freeze_unheld(model, held)
    method: Method[MultimodalModel, object] = experiment.component("method")
    settings = experiment.train
    model.eval()
    context = method.begin_round(model, examples, Round(number, held, settings.batch_size))
    if settings.compile:
        compile_encoders(model, held)
    optimizer = make_optimizer(model, settings)
    step = Step(model, method, context, optimizer, settings)
    losses: dict[str, float] = {}
    order = torch_rng(experiment.seed, "order", number, site)
    with seeded(experiment.seed, "train", number, site, device=model.device):
        for epoch in range(settings.epochs):
            done = (number - 1 + epoch / settings.epochs) / experiment.federation.rounds
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, done)
            change = Augmentation.of(model, examples, experiment.seed, number, epoch, site)
            losses = _epoch(model, step, examples, settings.batch_size, order, change)
            log.info("round %d, epoch %d: %s", number, epoch + 1, losses)
    method.end_round(model, examples, context)
    if not all_finite(learned(model).values()):
        raise TrainingError(f"{DIVERGED}: parameters are not finite; a lower train.lr may help")
    return losses


def make_optimizer(model: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The optimiser of a round, for the trainable parameters."""
    trained = [value for value in model.parameters() if value.requires_grad]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trained, settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(trained, settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)


def learning_rate(settings: Train, done: float) -> float:
    """The learning rate of an epoch. done: the share of the run's epochs before this one. With the cosine schedule, the
    rate is lr * (1 + cos(pi * done)) / 2."""
    return settings.lr * (0.5 * (1 + math.cos(math.pi * done)) if settings.schedule == "cosine" else 1)


def freeze_unheld(model: MultimodalModel, held: frozenset[Modality]) -> None:
    """Freeze the blocks of modalities that a client does not hold."""
    for modality in model.modalities:
        model.branches[modality].requires_grad_(modality in held)


def compile_encoders(model: MultimodalModel, held: frozenset[Modality]) -> None:
    """Compile the encoders that are trained. torch compiles an encoder when it first computes features."""
    for modality in sorted(held):
        encoder = model.encoder(modality)
        if any(True for _ in encoder.parameters()):
            encoder.compile()


def _epoch(
    model: MultimodalModel,
    step: Step,
    examples: Batch,
    size: int,
    order: torch.Generator,
    change: Augmentation | None,
) -> dict[str, float]:
    """Train for one epoch. Returns the mean of each loss term over the examples.

    The terms are added on the device and read once, because reading a number waits for the device.

    Raises TrainingError when a mean is not finite.
    """
    model.train()
    sums: dict[str, Tensor] = {}
    for batch in batches(examples, size, model.device, order, change):
        for name, term in step.take(batch).items():
            part = _wide(term) * len(batch)
            sums[name] = sums[name] + part if name in sums else part
    means = {name: float(value) / len(examples) for name, value in sums.items()}
    if not all(map(math.isfinite, means.values())):
        listed = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        raise TrainingError(f"{DIVERGED}: {listed}; a lower train.lr may help")
    return means


def _wide(value: Tensor) -> Tensor:
    """The value as float64, if the device supports it."""
    return value if value.device.type == "mps" else value.double()
