"""What a run leaves on disk."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from common.blocks import Params
from common.config import Experiment


class RunFolder:
    """runs/<name>/: experiment.yaml, metrics.jsonl, model.safetensors, summary.json, report.html.

    Whole files appear at once; metrics.jsonl grows by a line a round.
    """

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._write("experiment.yaml", experiment.to_yaml().encode())

    def round(self, line: Mapping[str, Any]) -> None:
        """Append the figures of a round."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(line, allow_nan=False) + "\n")

    def model(self, params: Params, experiment: Experiment, classes: tuple[str, ...]) -> None:
        """Save the parameters, with what is needed to build their model."""
        about = {"experiment": experiment.to_json(), "classes": json.dumps(classes)}
        self._write("model.safetensors", save(params, metadata=about))

    def summary(self, content: Mapping[str, Any]) -> None:
        """Save the summary: the last file of a run, so that its presence says that the run is over."""
        self._write("summary.json", json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")

    def _write(self, name: str, data: bytes) -> None:
        partial = self.folder / f".{name}.partial"
        partial.write_bytes(data)
        os.replace(partial, self.folder / name)


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of a run folder's metrics.jsonl so far; none while there is no such file."""
    path = folder / "metrics.jsonl"
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
