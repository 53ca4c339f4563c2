"""The training loop of a client, which all methods use."""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from client.freezing import freeze_encoders, freeze_unheld, frozen_in, train_mode
from client.methods.base import Method, Round
from client.methods.shared.criterion import criterion_of
from client.optimizer import make_optimizer
from client.schedule import Schedule
from client.step import Step
from common.blocks import all_finite, learned
from common.config.experiment import Experiment
from common.data.augmentation import Augmentation
from common.data.batches import batches
from common.errors import DIVERGED, TrainingError
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import seeded, torch_rng
from common.types import Batch

log = logging.getLogger(__name__)


def train(
    model: MultimodalModel,
    examples: Batch,
    experiment: Experiment,
    number: int,
    site: str,
    classes: Sequence[str] = (),
) -> dict[str, float]:
    """Train the model in place, on its device: the shared block and the blocks of the examples' modalities, except the
    encoders that `train.freeze` still freezes. Returns the mean of each loss term over the last whole pass over the
    examples, or over all steps if there are fewer than one pass.

    number: the round, from 1. classes: the names of the classes, which only class weights need.

    The order of the examples is a function of (seed, round, site), the augmentation of an example a function of (seed,
    round, pass, site, example).

    Raises TrainingError when a loss or a parameter is no longer finite. Raises DeviceError when the device's memory is
    full. Raises ConfigError when the experiment weights a class that does not exist.
    """
    held = frozenset(examples.modalities)
    settings = experiment.train
    frozen = [modality for modality in frozen_in(settings, number) if modality in held]
    freeze_unheld(model, held)
    freeze_encoders(model, frozen)
    method: Method[MultimodalModel, object] = experiment.component("method")
    criterion = criterion_of(experiment, examples.labels, classes, model.device)
    model.eval()
    now = Round(number, held, settings.batch_size, criterion, experiment.federation.rounds)
    context = method.begin_round(model, examples, now)
    if settings.compile:
        compile_encoders(model, held.difference(frozen))
    step = Step(model, method, context, criterion, make_optimizer(model, settings), settings)
    schedule, per_pass = Schedule(settings, experiment.federation.rounds), -(-len(examples) // settings.batch_size)
    losses: dict[str, float] = {}
    order = torch_rng(experiment.seed, "order", number, site)
    with seeded(experiment.seed, "train", number, site, device=model.device):
        for index, rates in enumerate(schedule.passes(number, per_pass)):
            change = Augmentation.of(model, examples, experiment.seed, number, index, site)
            train_mode(model, frozen)
            found = _pass(model, step, examples, rates, settings.batch_size, order, change)
            losses = found if len(rates) == per_pass or not losses else losses
            log.info("round %d, pass %d of %d steps: %s", number, index + 1, len(rates), found)
    method.end_round(model, examples, context)
    if not all_finite(learned(model).values()):
        raise TrainingError(f"{DIVERGED}: parameters are not finite; a lower train.lr may help")
    return losses


def compile_encoders(model: MultimodalModel, held: frozenset[Modality]) -> None:
    """Compile the encoders that are trained. torch compiles an encoder when it first computes features."""
    for modality in sorted(held):
        encoder = model.encoder(modality)
        if any(True for _ in encoder.parameters()):
            encoder.compile()


def _pass(
    model: MultimodalModel,
    step: Step,
    examples: Batch,
    rates: Sequence[float],
    size: int,
    order: torch.Generator,
    change: Augmentation | None,
) -> dict[str, float]:
    """Train for one step per rate, at most one pass. Returns the mean of each loss term over the examples. rates: the
    learning rate of each step.

    The terms are added on the device and read once, because reading a number waits for the device.

    Raises TrainingError when a mean is not finite.
    """
    sums: dict[str, Tensor] = {}
    chosen = batches(examples, size, model.device, order, change, most=len(rates))
    for rate, batch in zip(rates, chosen, strict=True):
        for name, term in step.take(batch, rate).items():
            part = _wide(term) * len(batch)
            sums[name] = sums[name] + part if name in sums else part
    count = min(len(examples), len(rates) * size)
    means = {name: float(value) / count for name, value in sums.items()}
    if not all(map(math.isfinite, means.values())):
        listed = ", ".join(f"{name} {value:.3g}" for name, value in means.items())
        raise TrainingError(f"{DIVERGED}: {listed}; a lower train.lr may help")
    return means


def _wide(value: Tensor) -> Tensor:
    """The value as float64, if the device supports it."""
    return value if value.device.type == "mps" else value.double()
