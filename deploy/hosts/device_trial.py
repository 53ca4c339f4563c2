"""A trial of a device for `fedmosaic doctor`: a few steps of training with the code that trains at a site."""

import time
from dataclasses import dataclass
from typing import get_args

import torch

from client.train import train
from common.build import build_model
from common.config.experiment import Experiment, Train
from common.config.reading import parse
from common.errors import DeviceError
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

    rates: examples per second, by precision. unusable: the precisions in which the device does not compute. peak: the
    largest number of bytes of the device's memory that this process has held; 0 if it is unknown.
    """

    device: torch.device
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
        return f"{STEPS} steps of a small model: {rates}{unusable}{peak}"


def try_device(hardware: Hardware) -> Trial:
    """Train a small model with random examples, in each precision.

    Raises DeviceError with the reason when the device cannot be used.
    """
    experiment = parse(EXPERIMENT, "the trial of the device")
    try:
        device = hardware.use()
        model = build_model(experiment, CLASSES).to(device)
        rates = {"float32": _rate(model, experiment, "float32")}
        for precision in PRECISIONS:
            if precision not in rates and (rate := _rate_if_possible(model, experiment, precision)):
                rates[precision] = rate
        return Trial(device, rates, [name for name in PRECISIONS if name not in rates], peak_bytes(device))
    except Exception as error:
        raise _explained(error) from error


def _rate_if_possible(model: MultimodalModel, experiment: Experiment, precision: str) -> float | None:
    """The examples per second; None when the device does not compute in this precision."""
    try:
        return _rate(model, experiment, precision)
    except Exception as error:
        if device_error(error):
            raise
        return None


def _rate(model: MultimodalModel, experiment: Experiment, precision: str) -> float:
    """The examples per second of a second training. The first one loads the kernels."""
    settings = experiment.train.model_copy(update={"precision": precision})
    chosen, examples = experiment.model_copy(update={"train": settings}), _examples()
    train(model, examples, chosen, 1, "doctor")
    started = time.perf_counter()
    train(model, examples, chosen, 1, "doctor")
    return len(examples) / (time.perf_counter() - started)


def _examples() -> Batch:
    """Random pictures of two modalities; the second modality is missing in every fourth example."""
    random, rows = torch.Generator().manual_seed(0), STEPS * ROWS
    inputs = {m: torch.randn(rows, 1, SIDE, SIDE, generator=random) for m in ("first", "second")}
    origin = {m: torch.full((rows,), int(Origin.OBSERVED)) for m in inputs}
    origin["second"][::4] = int(Origin.MISSING)
    inputs["second"][::4] = 0
    return Batch(inputs, origin, torch.randint(CLASSES, (rows,), generator=random))


def _explained(error: Exception) -> DeviceError:
    if isinstance(error, DeviceError):
        return error
    first = (str(error) or type(error).__name__).splitlines()[0][:200]
    return device_error(error) or DeviceError(f"the training failed: {type(error).__name__}: {first}")
