"""The model of an experiment, the same on the server and on every client."""

import torch

from common.component import build
from common.config import Experiment
from common.models.base import MultimodalModel
from common.seeding import derive


def build_model(experiment: Experiment, classes: int) -> MultimodalModel:
    """A new model whose weights are a function of the experiment's seed; global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(experiment.seed, "weights"))
        encoders = {m: build("encoder", experiment.model.encoders[m]).build() for m in experiment.modalities}
        model: MultimodalModel = experiment.component("model").build(encoders, classes)
    return model


def deterministic() -> None:
    """Make torch give the same numbers in every process: one thread, deterministic kernels only."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
