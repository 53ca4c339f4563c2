"""The training loop of a client, which all methods use."""

import logging
import math
from collections import defaultdict
from collections.abc import Callable

import torch

from client.methods.base import Method, Round
from common.blocks import all_finite, learned
from common.config.experiment import Experiment, Train
from common.data.augmentation import augmented
from common.data.batches import batches
from common.errors import DIVERGED, TrainingError
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import seeded, torch_rng
from common.types import Batch

log = logging.getLogger(__name__)


def train(model: MultimodalModel, examples: Batch, experiment: Experiment, number: int, site: str) -> dict[str, float]:
    """Train the model in place: the shared block and the blocks of the examples' modalities. Returns the mean of each
    loss term over the last epoch.

    The order of the examples is a function of (seed, round, site), the augmentation of an example a function of (seed,
    round, epoch, site, example).

    Raises TrainingError when a loss or a parameter is no longer finite.
    """
    held = frozenset(examples.modalities)
    freeze_unheld(model, held)
    method: Method[MultimodalModel, object] = experiment.component("method")
    settings = experiment.train
    model.eval()
    context = method.begin_round(model, examples, Round(number, held, settings.batch_size))
    optimizer = make_optimizer(model, settings)
    losses: dict[str, float] = {}
    order = torch_rng(experiment.seed, "order", number, site)
    with seeded(experiment.seed, "train", number, site):
        for epoch in range(settings.epochs):
            done = (number - 1 + epoch / settings.epochs) / experiment.federation.rounds
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, done)
            change = _augmentation(model, examples, experiment.seed, number, epoch, site)
            losses = _epoch(model, method, context, optimizer, examples, settings.batch_size, order, change)
            log.info("round %d, epoch %d: %s", number, epoch + 1, losses)
    method.end_round(model, examples, context)
    if not all_finite(learned(model).values()):
        raise TrainingError(f"{DIVERGED}: parameters are not finite; a lower train.lr may help")
    return losses


def make_optimizer(model: MultimodalModel, settings: Train) -> torch.optim.Optimizer:
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


def _augmentation(
    model: MultimodalModel, examples: Batch, seed: int, number: int, epoch: int, site: str
) -> Callable[[Batch], Batch]:
    """The function that augments a batch of an epoch."""
    encoders = {m: model.encoder(m) for m in examples.modalities}
    return lambda batch: augmented(batch, encoders, seed, number, epoch, site)


def _epoch(
    model: MultimodalModel,
    method: Method[MultimodalModel, object],
    context: object,
    optimizer: torch.optim.Optimizer,
    examples: Batch,
    size: int,
    order: torch.Generator,
    change: Callable[[Batch], Batch],
) -> dict[str, float]:
    """Train for one epoch. Returns the mean of each loss term over the examples."""
    model.train()
    sums: defaultdict[str, float] = defaultdict(float)
    for batch in batches(examples, size, model.device, order, change):
        terms = method.loss(model, batch, context)
        total = torch.stack(list(terms.values())).sum()
        if not math.isfinite(float(total.detach())):
            listed = ", ".join(f"{name} {float(term.detach()):.3g}" for name, term in terms.items())
            raise TrainingError(f"{DIVERGED}: {listed}; a lower train.lr may help")
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        method.after_backward(model, context)
        optimizer.step()
        for name, term in terms.items():
            sums[name] += float(term.detach()) * len(batch)
    return {name: value / len(examples) for name, value in sums.items()}
