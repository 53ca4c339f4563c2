"""Checkpoints: the state from which a run continues after a crash with the same result.

A checkpoint is one safetensors file, which any tool can open. The file name contains the round and the SHA-256 digest
of the content, so that reading detects damage. The last two checkpoints are kept.
"""

import hashlib
import json
import logging
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from common.blocks import Params
from common.config.experiment import Experiment
from common.config.reading import plugins_of
from common.config.tables import with_columns_of
from common.errors import ConfigError
from server.record.files import write_whole

log = logging.getLogger(__name__)
FOLDER = "checkpoints"
KEPT = 2
CURRENT = "model"
"""The entry `best` of the metadata when the best model is the global model."""
NAME = re.compile(r"round-(\d{6})-([0-9a-f]{64})\.safetensors")
FREE = {"name", "federation.wait_seconds", "federation.round_seconds", "federation.retries"}
"""Options that may change when a run is resumed, because they do not change what the model learns from the replies."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round.

    params: the global model. strategy: the state of the strategy. about: JSON values, among them `experiment`,
    `classes`, the roster, and the totals of the summary. before: the model of the checkpoint before, if there is one;
    it is not written again. best: the best model so far, if the experiment keeps it; not written again if it is the
    global model.
    """

    round: int
    params: Params
    strategy: Params = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    before: Params = field(default_factory=dict)
    best: Params = field(default_factory=dict)


def save_checkpoint(run_folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and remove all but the last two.

    Raises RunError when the checkpoint cannot be written. In this case, the earlier checkpoints remain.
    """
    tensors = {f"model/{name}": value for name, value in checkpoint.params.items()}
    current = bool(checkpoint.best) and checkpoint.best is checkpoint.params
    if not current:
        tensors |= {f"best/{name}": value for name, value in checkpoint.best.items()}
    tensors |= {f"strategy/{name}": value.contiguous() for name, value in checkpoint.strategy.items()}
    about = {"about": json.dumps(checkpoint.about), "round": str(checkpoint.round), "best": CURRENT if current else ""}
    data = save(tensors, metadata=about)
    digest = hashlib.sha256(data).hexdigest()
    (run_folder / FOLDER).mkdir(mode=0o700, exist_ok=True)  # the state may contain a secret of the strategy
    write_whole(run_folder / FOLDER / f"round-{checkpoint.round:06d}-{digest}.safetensors", data)
    for path in [*_newest_first(run_folder)[KEPT:], *(run_folder / FOLDER).glob(".*.partial")]:
        path.unlink(missing_ok=True)


def load_checkpoint(run_folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint, or None. Damaged checkpoints are logged."""
    found: list[Checkpoint] = []
    for path in _newest_first(run_folder):
        try:
            found.append(_read(path))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged and not used: %s", path.name, error)
    before = found[1].params if len(found) > 1 else {}
    return replace(found[0], before=before) if found else None


def damaged_checkpoints(run_folder: Path) -> list[str]:
    """The names of the damaged checkpoints."""
    return [path.name for path in _newest_first(run_folder) if not _is_whole(path)]


def check_same(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Raises ConfigError, with every difference, when the checkpoint's experiment differs from this one."""
    experiment = with_columns_of(experiment, checkpoint.about["experiment"])
    then, now = flat(checkpoint.about["experiment"]), flat(json.loads(experiment.to_json()))
    changed = sorted(key for key in (then.keys() | now.keys()) - FREE if then.get(key) != now.get(key))
    mistakes = [f"{key}: {then.get(key)!r} when the run began, {now.get(key)!r} now" for key in changed]
    before, after = checkpoint.about.get("plugins", {}), plugins_of(experiment)
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    mistakes += [f"plugin {name}: its content differs, or it was added or removed" for name in differing]
    if mistakes:
        raise ConfigError("a run can only be resumed with the options it began with", mistakes)


def _newest_first(run_folder: Path) -> list[Path]:
    found = (run_folder / FOLDER).glob("round-*.safetensors")
    return sorted((path for path in found if NAME.fullmatch(path.name)), reverse=True)


def _is_whole(path: Path) -> bool:
    named = NAME.fullmatch(path.name)
    return named is not None and hashlib.sha256(path.read_bytes()).hexdigest() == named[2]


def _read(path: Path) -> Checkpoint:
    if not _is_whole(path):
        raise ValueError("its content does not match the digest in its name")
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        number = int(file.metadata()["round"])
        current = file.metadata().get("best") == CURRENT
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    model, strategy, best = (_part(tensors, prefix) for prefix in ("model/", "strategy/", "best/"))
    return Checkpoint(number, model, strategy, about, best=model if current else best)


def _part(tensors: Params, prefix: str) -> Params:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted name. An empty section counts as a value."""
    if not isinstance(options, dict) or not options:
        return {prefix.removesuffix("."): options}
    return {key: value for name, below in options.items() for key, value in flat(below, f"{prefix}{name}.").items()}
