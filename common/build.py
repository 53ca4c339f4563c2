"""The model of an experiment, the same on the server and on every client."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from common.config.component import build
from common.config.experiment import Experiment, Model, from_json
from common.frozen.pretrained import permitted
from common.models.base import MultimodalModel
from common.seeding import seeded


def build_model(experiment: Experiment, classes: int) -> MultimodalModel:
    """A new model whose weights are a function of the experiment's seed; global random state is left alone."""
    with seeded(experiment.seed, "weights"):
        return assemble(experiment.model, classes)


def assemble(section: Model, classes: int) -> MultimodalModel:
    """A new model as a resolved section `model` describes it; its weights draw from torch's global random state."""
    if section.architecture is None:
        raise ValueError("the experiment is not resolved: no model")
    encoders = {m: build("encoder", section.encoders[m]).build() for m in sorted(section.encoders)}
    model: MultimodalModel = build("model", section.architecture).build(encoders, classes)
    return model


def reused_model(experiment: Experiment, classes: int) -> MultimodalModel:
    """The model as `build_model` makes it, in one object that this process keeps: who has got it before must be done
    with it. Building anew costs more than a small client's training."""
    kept = _kept(experiment.to_json(), classes, permitted())
    with torch.no_grad():
        for value, initial in zip(kept.values, kept.initial, strict=True):
            value.copy_(initial)
    for parameter, learned in kept.learned.items():
        parameter.requires_grad_(learned)
        parameter.grad = None
    return kept.model.train()


@dataclass(frozen=True)
class _Kept:
    """A model, the tensors of its state and their initial values, and which of its parameters are learned."""

    model: MultimodalModel
    values: list[Tensor]
    initial: list[Tensor]
    learned: dict[nn.Parameter, bool]


@lru_cache(maxsize=1)
def _kept(experiment: str, classes: int, models: frozenset[str] | None) -> _Kept:
    model = build_model(from_json(experiment), classes)
    values = list(model.state_dict().values())
    learned = {parameter: parameter.requires_grad for parameter in model.parameters()}
    return _Kept(model, values, [value.clone() for value in values], learned)


def deterministic() -> None:
    """Make torch give the same numbers in every process: one thread, deterministic kernels only."""
    torch.set_num_threads(1)
    # What use_deterministic_algorithms does, without loading torch's compiler to tell it as well: that takes seconds.
    torch.set_deterministic_debug_mode("error")
