"""The model of an experiment, the same on the server and on every client."""

from functools import lru_cache

import torch
from torch import Tensor

from common.component import build
from common.config import Experiment, from_json
from common.models.base import MultimodalModel
from common.seeding import seeded


def build_model(experiment: Experiment, classes: int) -> MultimodalModel:
    """A new model whose weights are a function of the experiment's seed; global random state is left alone."""
    with seeded(experiment.seed, "weights"):
        encoders = {m: build("encoder", experiment.model.encoders[m]).build() for m in experiment.modalities}
        model: MultimodalModel = experiment.component("model").build(encoders, classes)
    return model


def reused_model(experiment: Experiment, classes: int) -> MultimodalModel:
    """The model as `build_model` makes it, in one object that this process keeps: who has got it before must be done
    with it. Building anew costs more than a small client's training."""
    model, initial, learned = _kept(experiment.to_json(), classes)
    with torch.no_grad():
        for name, value in model.state_dict(keep_vars=True).items():
            value.copy_(initial[name])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learned)
        parameter.grad = None
    return model.train()


@lru_cache(maxsize=1)
def _kept(experiment: str, classes: int) -> tuple[MultimodalModel, dict[str, Tensor], frozenset[str]]:
    """A model, its initial state, and the names of the parameters that are learned."""
    model = build_model(from_json(experiment), classes)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    return model, initial, frozenset(name for name, value in model.named_parameters() if value.requires_grad)


def deterministic() -> None:
    """Make torch give the same numbers in every process: one thread, deterministic kernels only."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
