"""What several tests need."""

import os
from pathlib import Path

import pytest

# Workers of pytest share the cores: a BLAS that starts a thread a core only makes each of them wait for the other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import HealthCheck, settings

from common.evaluation import bootstrap
from common.hardware.computing import compute_deterministically
from common.split.make import make_shards
from fedmosaic.testing.examples import RAW, experiment, make_batch, make_pictures

settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

__all__ = ["RAW", "ROOT", "SHARED_DATA", "experiment", "make_batch", "make_pictures"]
ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

LONG = ["faults", "bench", "network", "worker", "pretrain", "report", "fuzz", "inprocess_engine", "bench_speed"]
"""The files that take longest, longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first, so that parallel workers end together."""
    place = {f"test_{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    compute_deterministically()


@pytest.fixture(autouse=True)
def _few_resamples(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of tests need intervals, but not precise ones, which take a second for each subset of modalities."""
    if request.node.path.name != "test_metrics.py":
        monkeypatch.setattr(bootstrap, "RESAMPLES", 50)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reports of runs in this process have no plots, because plots take longer than a tiny run."""
    monkeypatch.setattr("server.report.page.plots", lambda run: [])


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
    for name in tiny_models.NAMES:
        getattr(tiny_models, f"save_{name}")(folder / name)
    return folder


@pytest.fixture
def models(models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, found by their names."""
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(models_folder))
    return models_folder
