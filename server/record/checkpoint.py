"""Checkpoints: what a run needs to go on after a crash as if nothing had happened.

A checkpoint is one safetensors file whose name holds its round and its SHA-256 digest, so that it appears whole, is
found torn or altered when it is read, and any tool can open it. The last two are kept.
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
from common.errors import ConfigError
from server.record.files import write_whole

log = logging.getLogger(__name__)
FOLDER = "checkpoints"
KEPT = 2
NAME = re.compile(r"round-(\d{6})-([0-9a-f]{64})\.safetensors")
FREE = {"name", "federation.wait_seconds", "federation.round_seconds", "federation.retries"}
"""Options that may change when a run goes on: they decide nothing about what is learned from which replies."""


@dataclass(frozen=True)
class Checkpoint:
    """The state after a round. params: the global model. strategy: what the strategy remembers. about: JSON values, of
    them `experiment`, `classes` and `keys` (by site, see Roster), and the totals of the summary. before: the model of
    the checkpoint before, where there is one; it is not written again."""

    round: int
    params: Params
    strategy: Params = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    before: Params = field(default_factory=dict)


def save_checkpoint(run_folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint and remove all but the last two.

    Raises RunError when it cannot be written; those before it are still there then.
    """
    tensors = {f"model/{name}": value for name, value in checkpoint.params.items()}
    tensors |= {f"strategy/{name}": value.contiguous() for name, value in checkpoint.strategy.items()}
    data = save(tensors, metadata={"about": json.dumps(checkpoint.about), "round": str(checkpoint.round)})
    digest = hashlib.sha256(data).hexdigest()
    (run_folder / FOLDER).mkdir(mode=0o700, exist_ok=True)  # a secret of the strategy may be among the state
    write_whole(run_folder / FOLDER / f"round-{checkpoint.round:06d}-{digest}.safetensors", data)
    for path in [*_newest_first(run_folder)[KEPT:], *(run_folder / FOLDER).glob(".*.partial")]:
        path.unlink(missing_ok=True)


def load_checkpoint(run_folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; each that is not is logged. None when there is none."""
    found: list[Checkpoint] = []
    for path in _newest_first(run_folder):
        try:
            found.append(_read(path))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged and left out: %s", path.name, error)
    before = found[1].params if len(found) > 1 else {}
    return replace(found[0], before=before) if found else None


def damaged_checkpoints(run_folder: Path) -> list[str]:
    """The names of the checkpoints that are not whole."""
    return [path.name for path in _newest_first(run_folder) if not _is_whole(path)]


def check_same(experiment: Experiment, checkpoint: Checkpoint) -> None:
    """Raises ConfigError, with every difference, when a checkpoint is of another experiment."""
    then, now = flat(checkpoint.about["experiment"]), flat(json.loads(experiment.to_json()))
    changed = sorted(key for key in (then.keys() | now.keys()) - FREE if then.get(key) != now.get(key))
    if changed:
        mistakes = [f"{key}: {then.get(key)!r} when the run began, {now.get(key)!r} now" for key in changed]
        raise ConfigError("a run can only be resumed with the options it began with", mistakes)


def _newest_first(run_folder: Path) -> list[Path]:
    found = (run_folder / FOLDER).glob("round-*.safetensors")
    return sorted((path for path in found if NAME.fullmatch(path.name)), reverse=True)


def _is_whole(path: Path) -> bool:
    named = NAME.fullmatch(path.name)
    return named is not None and hashlib.sha256(path.read_bytes()).hexdigest() == named[2]


def _read(path: Path) -> Checkpoint:
    if not _is_whole(path):
        raise ValueError("its content is not what was written")
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        number = int(file.metadata()["round"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
    return Checkpoint(number, _part(tensors, "model/"), _part(tensors, "strategy/"), about)


def _part(tensors: Params, prefix: str) -> Params:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def flat(options: Any, prefix: str = "") -> dict[str, Any]:
    """Nested options by dotted name; an empty section is a value."""
    if not isinstance(options, dict) or not options:
        return {prefix.removesuffix("."): options}
    return {key: value for name, below in options.items() for key, value in flat(below, f"{prefix}{name}.").items()}
