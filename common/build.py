"""Builds the model of an experiment. The server and every client build the same model."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from common.config.component import build
from common.config.experiment import Experiment, Model
from common.config.reading import from_json
from common.config.task import TaskName
from common.frozen.pretrained import permitted
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import seeded


def build_model(experiment: Experiment, classes: int) -> MultimodalModel:
    """A new model whose weights depend only on the experiment and its seed. The global random state does not change."""
    with seeded(experiment.seed, "weights"):
        return assemble(experiment.model, classes, experiment.task.name)


def assemble(section: Model, classes: int, task: TaskName = "single-label") -> MultimodalModel:
    """A new model as a resolved section `model` describes it. The weights are drawn from torch's global random state.

    Raises ValueError when the section has no architecture.
    """
    if section.architecture is None:
        raise ValueError("the experiment is not resolved: it has no model.architecture")
    encoders = {m: build("encoder", section.encoders[m]).build() for m in sorted(section.encoders)}
    model: MultimodalModel = build("model", section.architecture).build(encoders, classes)
    model.task = task
    return model


def bases(section: Model) -> dict[Modality, frozenset[str]]:
    """By modality, the descriptions of the pre-trained weights that a site may have (`EncoderOptions.bases`); nothing
    for encoders without any.

    Raises ModelError when this machine does not have the weights.
    """
    found = {m: build("encoder", section.encoders[m]).bases() for m in sorted(section.encoders)}
    return {m: known for m, known in found.items() if known}


def reused_model(experiment: Experiment, classes: int, device: torch.device) -> MultimodalModel:
    """The model of `build_model` on a device, in one object that this process reuses.

    The previous caller must not use the object any more. Reusing it is worthwhile because building a new model costs
    more time than the training of a small client.
    """
    kept = _kept(experiment.to_json(), classes, permitted(), device)
    with torch.no_grad():
        for value, initial in zip(kept.values, kept.initial, strict=True):
            value.copy_(initial)
    for parameter, learned in kept.learned.items():
        parameter.requires_grad_(learned)
        parameter.grad = None
    return kept.model.train()


@dataclass(frozen=True)
class _Kept:
    """A model, the tensors of its state, their initial values, and whether each parameter is learned."""

    model: MultimodalModel
    values: list[Tensor]
    initial: list[Tensor]
    learned: dict[nn.Parameter, bool]


@lru_cache(maxsize=1)
def _kept(experiment: str, classes: int, models: frozenset[str] | None, device: torch.device) -> _Kept:
    model = build_model(from_json(experiment), classes).to(device)
    values = list(model.state_dict().values())
    learned = {parameter: parameter.requires_grad for parameter in model.parameters()}
    return _Kept(model, values, [value.clone() for value in values], learned)
