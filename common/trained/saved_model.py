"""A trained model on disk: in a run's folder, or exported.

run/model.safetensors      the parameters, with the experiment and the classes as metadata
exported/model.safetensors only the parameters
exported/config.json       a `Description`
"""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from common.blocks import Params, learned, set_params
from common.build import assemble
from common.config.component import Options
from common.config.experiment import Model
from common.config.task import SingleLabel, Task
from common.errors import ConfigError, ModelError
from common.files import write_whole
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import seeded

WEIGHTS, CONFIG = "model.safetensors", "config.json"


class Description(Options):
    """The information that is needed to build a model from its parameters.

    frozen: the descriptions of the pre-trained weights that are not among the parameters, see `Encoder.base`; {} if
        they are not known.
    """

    model: Model
    task: Task = SingleLabel()
    classes: list[str]
    frozen: dict[Modality, str] = Field(default_factory=dict)


def read_model(folder: Path) -> tuple[MultimodalModel, Description]:
    """The model in a run's folder or an exported folder, in eval mode.

    Raises ModelError when there is no model, when the model is damaged or from another version of this project, or when
    pre-trained weights are absent or others than in training.
    """
    params, metadata = _read_weights(folder / WEIGHTS)
    description = _described(folder, metadata)
    model = _build(folder, description)
    wanted = {name: value.shape for name, value in learned(model).items()}
    if wanted != {name: value.shape for name, value in params.items()}:
        raise ModelError(f"{folder / WEIGHTS}: the file's tensors do not match the model that its description defines")
    set_params(model, params)
    now = pretrained_encoders(model)
    if other := [m for m, then in description.frozen.items() if now.get(m) != then]:
        raise ModelError(
            f"{folder}: the pre-trained encoder of {', '.join(other)} has other weights here than in training"
        )
    return model.eval().requires_grad_(False), description


def write_model(folder: Path, model: MultimodalModel, description: Description) -> None:
    """Write the files of an exported folder, which must exist.

    Raises OSError.
    """
    config = description.model_dump_json(indent=1)
    write_whole(folder / CONFIG, config.encode() + b"\n")
    write_whole(folder / WEIGHTS, save({name: value.contiguous() for name, value in learned(model).items()}))


def pretrained_encoders(model: MultimodalModel) -> dict[Modality, str]:
    """The descriptions of a model's pre-trained weights that are not among its parameters, which include a hash."""
    bases = {m: model.encoder(m).base for m in model.modalities}
    return {m: base for m, base in bases.items() if base}


def _read_weights(path: Path) -> tuple[Params, dict[str, str]]:
    if not path.is_file():
        raise ModelError(f"there is no {path}: the folder must be a run after its first round or an exported model")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None


def _described(folder: Path, metadata: dict[str, str]) -> Description:
    try:
        if (folder / CONFIG).exists():
            return Description.model_validate_json((folder / CONFIG).read_bytes())
        experiment = json.loads(metadata["experiment"])
        found: dict[str, Any] = {
            "model": experiment["model"],
            "task": experiment.get("task", "single-label"),
            "classes": json.loads(metadata["classes"]),
            "frozen": json.loads(metadata.get("frozen", "{}")),
        }
        return Description.model_validate_json(json.dumps(found))
    except KeyError as error:
        raise ModelError(f"{folder / WEIGHTS} has no description of its model: {error.args[0]!r} is absent") from None
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{folder}: the description of the model cannot be read: {_why(error)}") from None


def _build(folder: Path, description: Description) -> MultimodalModel:
    try:
        with seeded(0, "weights"):
            return assemble(description.model, len(description.classes))
    except (ConfigError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}: this version of fedmosaic cannot build the model: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "; ".join(error.mistakes)
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
    return str(error)
