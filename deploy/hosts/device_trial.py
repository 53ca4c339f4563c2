"""A trial of a device for `fedmosaic doctor`: a few steps of training with the code that trains at a site."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch

from client.site import Site
from client.train import train
from common.build import build_model
from common.config.experiment import Experiment, Train
from common.config.reading import parse
from common.errors import DeviceError, FedmosaicError
from common.hardware.computing import Hardware
from common.hardware.device import described
from common.hardware.facts import memory, peak_bytes, software
from common.hardware.faults import device_error
from common.models.base import MultimodalModel
from common.types import Batch, Origin
from common.words.units import human

STEPS, ROWS, CLASSES, SIDE = 3, 32, 10, 16
"""Steps of a trial, examples per step, classes, and pixels per side of the pictures."""
EXPERIMENT = {
    "name": "doctor",
    "data": {"clients": 1},
    "model": {"encoders": {m: {"name": "image", "size": SIDE} for m in ("first", "second")}},
    "method": "fedcmi",
    "train": {"epochs": 1, "batch_size": ROWS, "lr": 0.01},
    "federation": {"rounds": 1},
}
PRECISIONS: tuple[str, ...] = get_args(Train.model_fields["precision"].annotation)


@dataclass(frozen=True)
class Trial:
    """The result of a trial.

    done: the work, as a text. rates: examples per second, by precision. unusable: the precisions in which the device
    does not compute. peak: the largest number of bytes of the device's memory that this process has held; 0 if it is
    unknown.
    """

    device: torch.device
    done: str
    rates: dict[str, float]
    unusable: list[str]
    peak: int

    def hardware(self) -> str:
        """The device, its driver and its memory, as a text."""
        parts = [software(self.device)] if software(self.device) else []
        if self.device.type == "cpu":
            parts.append(f"{torch.get_num_threads()} threads")
        if known := memory(self.device):
            parts.append("{} of {} memory free".format(*map(human, known)))
        return "; ".join([described(self.device), *parts])

    def performance(self) -> str:
        """The speed in each precision and the peak memory, as a text."""
        rates = ", ".join(f"{name} {rate:.0f} examples/s" for name, rate in self.rates.items())
        unusable = f"; not possible: {', '.join(self.unusable)}" if self.unusable else ""
        peak = f"; peak memory {human(self.peak)}" if self.peak else ""
        return f"{self.done}: {rates}{unusable}{peak}"


@dataclass(frozen=True)
class Work:
    """The work of a trial: an experiment, its model on the device, and examples for a few steps."""

    experiment: Experiment
    model: MultimodalModel
    examples: Batch

    def result(self, model: str, rates: dict[str, float], unusable: list[str]) -> Trial:
        """The result of the work. model: the model, as a text."""
        steps = math.ceil(len(self.examples) / self.experiment.train.batch_size)
        device = self.model.device
        return Trial(device, f"{steps} steps of {model}", rates, unusable, peak_bytes(device))


def try_device(hardware: Hardware) -> Trial:
    """Train a small model with random examples, in each precision.

    Raises DeviceError with the reason when the device cannot be used.
    """
    with _explained():
        work = _small(hardware)
        rates = {"float32": _rate(work, "float32")}
        for precision in PRECISIONS:
            if precision not in rates and (rate := _rate_if_possible(work, precision)):
                rates[precision] = rate
        return work.result("a small model", rates, [name for name in PRECISIONS if name not in rates])


def try_experiment(hardware: Hardware, shard: Path, experiment: Experiment) -> Trial:
    """Train the model of an experiment with examples of a shard, in the experiment's precision. Values are prepared and
    stored as in a round.

    Raises DeviceError with the reason when the device cannot be used, or ShardError.
    """
    with _explained():
        here = Site(shard, hardware=hardware).open(experiment)
        training, _ = here.loaded.split(experiment.data.validation, experiment.seed)
        count = min(len(training), STEPS * experiment.train.batch_size)
        work = Work(experiment, here.model, training.rows(torch.arange(count)))
        precision: str = experiment.train.precision
        return work.result(f"the model of {experiment.name}", {precision: _rate(work, precision)}, [])


@contextmanager
def _explained() -> Iterator[None]:
    """Every error within this context is an error of this project with a text for the user."""
    try:
        yield
    except FedmosaicError:
        raise
    except Exception as error:
        first = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise device_error(error) or DeviceError(f"the training failed: {type(error).__name__}: {first}") from error


def _small(hardware: Hardware) -> Work:
    experiment = parse(EXPERIMENT, "the trial of the device")
    device = hardware.use()
    return Work(experiment, build_model(experiment, CLASSES).to(device), _examples())


def _rate_if_possible(work: Work, precision: str) -> float | None:
    """The examples per second; None when the device does not compute in this precision."""
    try:
        return _rate(work, precision)
    except Exception as error:
        if isinstance(error, DeviceError) or device_error(error):
            raise
        return None


def _rate(work: Work, precision: str) -> float:
    """The examples per second of a second training. The first one loads the kernels."""
    settings = work.experiment.train.model_copy(update={"precision": precision, "epochs": 1})
    chosen = work.experiment.model_copy(update={"train": settings})
    train(work.model, work.examples, chosen, 1, "doctor")
    started = time.perf_counter()
    train(work.model, work.examples, chosen, 1, "doctor")
    return len(work.examples) / (time.perf_counter() - started)


def _examples() -> Batch:
    """Random pictures of two modalities; the second modality is missing in every fourth example."""
    random, rows = torch.Generator().manual_seed(0), STEPS * ROWS
    pixels = {m: torch.randint(256, (rows, 1, SIDE, SIDE), generator=random) for m in ("first", "second")}
    inputs = {m: values.to(torch.uint8) for m, values in pixels.items()}
    origin = {m: torch.full((rows,), int(Origin.OBSERVED)) for m in inputs}
    origin["second"][::4] = int(Origin.MISSING)
    inputs["second"][::4] = 0
    return Batch(inputs, origin, torch.randint(CLASSES, (rows,), generator=random))
