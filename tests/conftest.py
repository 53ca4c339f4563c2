"""What several tests need."""

import copy
import os
from pathlib import Path
from typing import Any

import pytest

# Workers of pytest share the cores: a BLAS that starts a thread a core only makes each of them wait for the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import yaml
from hypothesis import HealthCheck, settings

from common.build import deterministic
from common.config.experiment import Experiment, parse
from common.modality import Modality
from common.split.make import make_shards
from common.types import Batch, Origin

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

RAW: dict[str, Any] = yaml.safe_load(
    """
name: tiny
seed: 3
data:
  set: {name: digits-mini}
  clients: 2
  partition: {name: iid}
  missing: {unimodal_clients: {audio: 0.5}}
  limit: 80
  test_limit: 40
  validation: 0.2
model:
  encoders:
    audio: {name: spectrogram, n_mels: 16, width: 8}
    image: {name: image, size: 8, width: 8}
method: fedcmi
train: {epochs: 1, batch_size: 16, lr: 0.01}
federation: {rounds: 2, wait_seconds: 60}
"""
)


LONG = ["faults", "bench", "network", "worker", "pretrain", "report", "fuzz", "inprocess_engine", "bench_speed"]
"""The files that take longest, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that parallel workers end together."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


def experiment(**changes: Any) -> Experiment:
    """The tiny experiment with options changed; "__" stands for the dot, e.g. train__lr=0.1."""
    raw = copy.deepcopy(RAW)
    for dotted, value in changes.items():
        *sections, option = dotted.split("__")
        target = raw
        for section in sections:
            target = target.setdefault(section, {})
        target[option] = value
    return parse(raw, "test")


def make_batch(
    modalities: dict[Modality, tuple[int, ...]], rows: int, classes: int, seed: int = 0, missing: float = 0.0
) -> Batch:
    """Random inputs of given shapes; each value is missing with a probability, but no row misses everything."""
    rng = torch.Generator().manual_seed(seed)
    inputs = {m: torch.randn(rows, *shape, generator=rng) for m, shape in modalities.items()}
    gone = {m: torch.rand(rows, generator=rng) < missing for m in modalities}
    gone[min(modalities)] &= ~torch.stack(list(gone.values())).all(0)
    origin = {m: torch.where(gone[m], int(Origin.MISSING), int(Origin.OBSERVED)) for m in modalities}
    return Batch(inputs, origin, torch.randint(classes, (rows,), generator=rng))


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    deterministic()


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """client-0, client-1 (one with audio only) and test of the tiny experiment."""
    folder = tmp_path_factory.mktemp("tiny") / "shards"
    make_shards(experiment(), folder)
    return folder


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny frozen models with random weights, one of each kind, by name."""
    import tiny_models

    folder = tmp_path_factory.mktemp("models")
    for name in ("coca", "clip", "bert", "clip_text", "vision_transformer", "blip2", "diffusion"):
        getattr(tiny_models, f"save_{name}")(folder / name)
    return folder


@pytest.fixture
def models(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, found by their names."""
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(models_folder))
    return models_folder
