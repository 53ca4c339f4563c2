"""fedmosaic from Python: run experiments, read their figures, compare runs, look at shards, use trained models. Imports
the other packages of the project; none of them imports this package.

Example::

    import fedmosaic

    run = fedmosaic.run("configs/digits-mini-fedcmi.yaml")
    print(run.figures)
    (prediction,) = run.model().predict([{"image": "7.png", "audio": "7.wav"}])
    print(prediction.label, prediction.probabilities)

A name is imported when it is first used, so `import fedmosaic` is quick, and a trained model needs no Flower.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.data.shard import Shard
    from common.datasets.digits_mini import DigitsMini
    from common.errors import FedmosaicError
    from common.media.sounds import Sound
    from common.trained.predictor import Prediction, Predictor, load_model
    from fedmosaic.comparison import Comparison, compare
    from fedmosaic.experiments import Experiment, load_experiment
    from fedmosaic.inspection import Inspection, inspect
    from fedmosaic.results import Run
    from fedmosaic.running import run

__all__ = [
    "Comparison",
    "DigitsMini",
    "Experiment",
    "FedmosaicError",
    "Inspection",
    "Prediction",
    "Predictor",
    "Run",
    "Shard",
    "Sound",
    "compare",
    "inspect",
    "load_experiment",
    "load_model",
    "run",
]

_HOMES = {
    "Comparison": "fedmosaic.comparison",
    "DigitsMini": "common.datasets.digits_mini",
    "Experiment": "fedmosaic.experiments",
    "FedmosaicError": "common.errors",
    "Inspection": "fedmosaic.inspection",
    "Prediction": "common.trained.predictor",
    "Predictor": "common.trained.predictor",
    "Run": "fedmosaic.results",
    "Shard": "common.data.shard",
    "Sound": "common.media.sounds",
    "compare": "fedmosaic.comparison",
    "inspect": "fedmosaic.inspection",
    "load_experiment": "fedmosaic.experiments",
    "load_model": "common.trained.predictor",
    "run": "fedmosaic.running",
}


def __getattr__(name: str) -> Any:
    """A public name, from the module that defines it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fedmosaic' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
