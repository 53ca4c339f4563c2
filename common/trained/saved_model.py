"""A trained model on disk: in a run's folder, or exported.

run/model.safetensors      the last parameters, with the experiment and the classes as metadata
run/best.safetensors       the best parameters in the same form, if the experiment keeps them (`federation.keep.best`)
exported/model.safetensors only the parameters
exported/config.json       a `Description`
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from common.blocks import Params, learned, set_params
from common.build import assemble
from common.config.component import Options
from common.config.experiment import Model
from common.config.selection import On
from common.config.task import SingleLabel, Task
from common.errors import ConfigError, ModelError
from common.files import write_whole
from common.modality import Modality
from common.models.base import MultimodalModel
from common.seeding import seeded

WEIGHTS, BEST, CONFIG = "model.safetensors", "best.safetensors", "config.json"
Which = Literal["best", "last"]


class Best(Options):
    """The best model of a run: the round that made it, and the value by which it is the best."""

    round: int
    metric: str
    subset: str
    on: On
    value: float


class Description(Options):
    """The information that is needed to build a model from its parameters.

    frozen: the descriptions of the pre-trained weights that are not among the parameters, see `Encoder.base`; {} if
        they are not known. best: None for the last model of a run.
    """

    model: Model
    task: Task = SingleLabel()
    classes: list[str]
    frozen: dict[Modality, str] = Field(default_factory=dict)
    best: Best | None = None


def read_model(folder: Path, which: Which | None = None) -> tuple[MultimodalModel, Description]:
    """The model in a run's folder or an exported folder, in eval mode. which: the model of a run; None: the best one if
    the run keeps it, else the last one.

    Raises ModelError when there is no model, when the model is damaged or from another version of this project, or when
    pre-trained weights are absent or others than in training.
    """
    path = weights_file(folder, which)
    params, metadata = read_weights(path)
    description = described(path, metadata)
    model = _build(folder, description)
    wanted = {name: value.shape for name, value in learned(model).items()}
    if wanted != {name: value.shape for name, value in params.items()}:
        raise ModelError(f"{path}: the file's tensors do not match the model that its description defines")
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


def weights_file(folder: Path, which: Which | None = None) -> Path:
    """The file of a model in a run's folder or an exported folder.

    Raises ModelError when the folder does not have this model.
    """
    best, last = folder / BEST, folder / WEIGHTS
    if which is not None and (folder / CONFIG).exists():
        raise ModelError(f"{folder} is an exported model, so there is no choice between best and last")
    if which == "best" and not best.is_file():
        raise ModelError(f"{folder} has no best model, because the experiment does not have federation.keep.best")
    if which == "last" and best.is_file() and not last.is_file():
        raise ModelError(f"{folder} has only its best model, because federation.keep.last is false")
    return best if which != "last" and best.is_file() else last


def read_weights(path: Path) -> tuple[Params, dict[str, str]]:
    """The tensors and the metadata of a file.

    Raises ModelError.
    """
    if not path.is_file():
        raise ModelError(f"there is no {path}: the folder must be a run after its first round or an exported model")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None


def described(path: Path, metadata: dict[str, str]) -> Description:
    """The description of the model in a file, from its metadata or from the exported folder that contains it.

    Raises ModelError.
    """
    folder = path.parent
    try:
        if (folder / CONFIG).exists():
            return Description.model_validate_json((folder / CONFIG).read_bytes())
        experiment = json.loads(metadata["experiment"])
        found: dict[str, Any] = {
            "model": experiment["model"],
            "task": experiment.get("task", "single-label"),
            "classes": json.loads(metadata["classes"]),
            "frozen": json.loads(metadata.get("frozen", "{}")),
            "best": json.loads(metadata.get("best", "null")),
        }
        return Description.model_validate_json(json.dumps(found))
    except KeyError as error:
        raise ModelError(f"{path} has no description of its model: {error.args[0]!r} is absent") from None
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{folder}: the description of the model cannot be read: {_why(error)}") from None


def _build(folder: Path, description: Description) -> MultimodalModel:
    try:
        with seeded(0, "weights"):
            return assemble(description.model, len(description.classes), description.task.name)
    except (ConfigError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{folder}: this version of fedmosaic cannot build the model: {_why(error)}") from None


def _why(error: Exception) -> str:
    if isinstance(error, ConfigError):
        return "; ".join(error.mistakes)
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in error.errors())
    return str(error)
