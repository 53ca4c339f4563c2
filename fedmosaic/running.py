"""Runs an experiment from Python, with the same result as `fedmosaic run` on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from common.config.experiment import read
from deploy.cli import parser
from deploy.commands.run import run_to_end


def run(
    config: str | Path,
    engine: Literal["inprocess", "simulation", "processes"] = "inprocess",
    changes: Mapping[str, Any] | None = None,
    shards: str | Path | None = None,
    run_dir: str | Path | None = None,
) -> Path:
    """Run an experiment to its end and return the folder of the run.

    changes: values by dotted option, e.g. {"train.lr": 0.1}. shards: the clients' shards; None: shards/NAME, which are
    made if they are absent. run_dir: the folder of the run; None: a new folder runs/NAME.

    Raises ConfigError with every mistake of the experiment, RunError when the run fails, and the other errors of
    `common.errors`.
    """
    options = parser().parse_args(["run", str(config), "--engine", engine])
    options.shards = Path(shards) if shards is not None else None
    options.run_dir = Path(run_dir) if run_dir is not None else None
    folder = run_to_end(options, read(Path(config), dict(changes or {})), link=None)
    assert folder is not None
    return folder
