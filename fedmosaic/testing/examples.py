"""Small inputs for the contracts: a batch of random tensors, an experiment on digits."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from common.config.experiment import Experiment
from common.config.reading import parse
from common.config.task import TaskName
from common.encoders.image import ImageEncoder
from common.modality import Modality
from common.types import Batch, Origin

CLASSES = 4
MODALITIES: dict[int, list[Modality]] = {2: ["a", "b"], 3: ["a", "b", "c"]}
"""By their number."""
SIDE = 8
RAW: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "data": {
        "set": {"name": "digits-mini"},
        "clients": 2,
        "partition": {"name": "iid"},
        "missing": {"unimodal_clients": {"audio": 0.5}},
        "limit": 80,
        "test_limit": 40,
        "validation": 0.2,
    },
    "model": {
        "encoders": {
            "audio": {"name": "spectrogram", "n_mels": 16, "width": 8},
            "image": {"name": "image", "size": 8, "width": 8},
        }
    },
    "method": "fedcmi",
    "train": {"epochs": 1, "batch_size": 16, "lr": 0.01},
    "federation": {"rounds": 2, "wait_seconds": 60},
}


def experiment(**changes: Any) -> Experiment:
    """A small experiment with changed options; "__" is the dot, e.g. train__lr=0.1.

    Raises ConfigError.
    """
    raw = copy.deepcopy(RAW)
    for dotted, value in changes.items():
        *sections, option = dotted.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        target[option] = value
    return parse(raw, "test")


def make_batch(
    modalities: Mapping[Modality, tuple[int, ...]],
    rows: int,
    classes: int,
    seed: int = 0,
    missing: float = 0.0,
    task: TaskName = "single-label",
) -> Batch:
    """Random inputs of given shapes; each value is missing with a probability, but every row has at least one value.
    The targets are random too. For multi-label, the first row has no label, and the second has all."""
    rng = torch.Generator().manual_seed(seed)
    inputs = {m: torch.randn(rows, *shape, generator=rng) for m, shape in modalities.items()}
    gone = {m: torch.rand(rows, generator=rng) < missing for m in modalities}
    gone[min(modalities)] &= ~torch.stack(list(gone.values())).all(0)
    origin = {m: torch.where(gone[m], int(Origin.MISSING), int(Origin.OBSERVED)) for m in modalities}
    return Batch(inputs, origin, make_targets(rows, classes, task, rng))


def make_targets(rows: int, classes: int, task: TaskName, rng: torch.Generator) -> torch.Tensor:
    """Random targets of a task, see `Batch.labels`."""
    if task == "single-label":
        return torch.randint(classes, (rows,), generator=rng)
    values = torch.randn(rows, classes, generator=rng)
    if task == "regression":
        return values
    labels = (values > 0.5).float()
    labels[0], labels[1:2] = 0, 1
    return labels


def make_pictures(
    modalities: Iterable[Modality],
    rows: int,
    classes: int,
    seed: int = 0,
    missing: float = 0.0,
    task: TaskName = "single-label",
) -> Batch:
    """`make_batch` with small pictures [1, 8, 8] uint8, the prepared inputs of an `ImageEncoder`."""
    batch = make_batch(dict.fromkeys(modalities, (1, SIDE, SIDE)), rows, classes, seed, missing, task)
    inputs = {m: (127.5 + 64 * x).round().clamp(0, 255).to(torch.uint8) for m, x in batch.inputs.items()}
    return replace(batch, inputs=inputs)


def picture_encoders(count: int) -> dict[Modality, ImageEncoder]:
    """An encoder of small pictures [1, 8, 8] -> [6] for each of `count` modalities, the same weights every time."""
    torch.manual_seed(5)
    return {m: ImageEncoder(SIDE, 1, "cnn", 6) for m in MODALITIES[count]}


def pictures(count: int, missing: float = 0.0, task: TaskName = "single-label") -> Batch:
    """24 random rows for these encoders."""
    return make_pictures(MODALITIES[count], 24, CLASSES, missing=missing, task=task)


def spoiled(batch: Batch) -> Batch:
    """The batch with large values where a modality is missing, which must not influence anything."""
    inputs = {
        m: torch.where(batch.has(m).reshape(-1, *[1] * (x.dim() - 1)), x, torch.full_like(x, 100.0))
        for m, x in batch.inputs.items()
    }
    return replace(batch, inputs=inputs)
