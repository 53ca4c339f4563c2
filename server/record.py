"""What a run leaves on disk."""

import fcntl
import json
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from common.blocks import Params
from common.config import Experiment
from common.errors import ConfigError, RunError
from server.files import append_line, write_whole

METRICS, SUMMARY = "metrics.jsonl", "summary.json"
RESERVED_BYTES = 1 << 20


class RunFolder:
    """runs/<name>/: experiment.yaml, metrics.jsonl, model.safetensors, checkpoints/, summary.json, report.html.

    Whole files appear at once; metrics.jsonl grows by a line a round. A little space is reserved, so that a full disk
    does not keep the summary from saying so.

    resumed_after: the round after which a run goes on, -1 for none; later lines of metrics.jsonl are dropped.

    Raises ConfigError when the folder already has a run, RunError when another process writes to it or nothing can be
    written.
    """

    def __init__(self, folder: Path, experiment: Experiment, resumed_after: int | None = None) -> None:
        if resumed_after is None and (folder / "experiment.yaml").exists():
            raise ConfigError("run folder", [f"{folder} has a run already, and a run never overwrites another"])
        self.folder = folder
        self._reserve = folder / ".reserve"
        write_whole(self._reserve, bytes(RESERVED_BYTES))
        self._claim()
        if resumed_after is not None:
            self._go_on(resumed_after)
        write_whole(folder / "experiment.yaml", experiment.to_yaml().encode())

    def round(self, line: Mapping[str, Any]) -> None:
        """Append the figures of a round."""
        append_line(self.folder / METRICS, json.dumps(line, allow_nan=False))

    def model(self, params: Params, experiment: Experiment, classes: tuple[str, ...]) -> None:
        """Save the parameters, with what is needed to build their model."""
        about = {"experiment": experiment.to_json(), "classes": json.dumps(classes)}
        write_whole(self.folder / "model.safetensors", save(params, metadata=about))

    def summary(self, content: Mapping[str, Any]) -> None:
        """Save the summary: the last file of a run, so that its presence says that the run is over."""
        self._reserve.unlink(missing_ok=True)
        write_whole(self.folder / SUMMARY, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")

    def _claim(self) -> None:
        """Hold a lock on the folder as long as this object, or its process, lives."""
        lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o600)
        weakref.finalize(self, os.close, lock)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process still writes to {self.folder}: wait for its end, or stop it") from None

    def _go_on(self, number: int) -> None:
        (self.folder / SUMMARY).unlink(missing_ok=True)
        kept = [line for line in read_rounds(self.folder) if line["round"] <= number]
        lines = "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept)
        write_whole(self.folder / METRICS, lines.encode())


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of a run folder's metrics.jsonl so far; none while there is no such file."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def free_folder(wanted: Path) -> Path:
    """The folder, or where it exists the first free one of <name>-2, <name>-3, ...: a run never overwrites another."""
    folder, number = wanted, 1
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def unfinished_folder(wanted: Path) -> Path:
    """The run to go on with: of <name>, <name>-2, <name>-3, ... the last one that exists.

    Raises ConfigError when there is none or when it has run to its end.
    """
    if not wanted.exists():
        raise ConfigError("--resume", [f"there is no run in {wanted}"])
    folder, number = wanted, 2
    while (later := wanted.with_name(f"{wanted.name}-{number}")).exists():
        folder, number = later, number + 1
    summary = folder / SUMMARY
    if summary.exists() and json.loads(summary.read_text(encoding="utf-8"))["status"] == "completed":
        raise ConfigError("--resume", [f"{folder} has run to its end"])
    return folder
