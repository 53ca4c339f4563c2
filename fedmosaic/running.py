"""Runs an experiment from Python, with the same result as `fedmosaic run` on this machine."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

from common.config.reading import read
from common.errors import ConfigError
from common.hardware.computing import restored
from deploy.cli import parser
from deploy.commands.run import run_to_end

Engine = Literal["inprocess", "simulation", "processes"]


def run(
    config: str | Path,
    engine: Engine = "inprocess",
    changes: Mapping[str, Any] | None = None,
    shards: str | Path | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    device: str = "cpu",
    init: str | Path | None = None,
    trackers: Sequence[str | Mapping[str, Any]] = (),
) -> Path:
    """Run an experiment to its end and return the folder of the run.

    changes: values by dotted option, e.g. {"train.lr": 0.1}. shards: the clients' shards; None: shards/NAME, which are
    made if they are absent. run_dir: the folder of the run; None: a new folder runs/NAME. resume: whether to continue
    the unfinished run in that folder. device: the device of the clients: auto, cpu, cuda, cuda:N or mps. init: a run's
    folder, an exported folder or a .safetensors file of one of them with the model to start from; None: random weights.
    trackers: show the figures of the run while it runs, each by its name or as a mapping with its name and options.

    With the engine "inprocess", the run takes over the root logger, the umask, and torch's threads and determinism of
    this process until it ends.

    Raises ConfigError with every mistake of the arguments or of the experiment, RunError when the run fails, and the
    other errors of `common.errors`.
    """
    mistakes = []
    if engine not in get_args(Engine):
        mistakes.append(f"engine: {engine!r} is not one of {', '.join(get_args(Engine))}")
    if odd := [key for key in changes or {} if not isinstance(key, str)]:
        mistakes.append(f"changes: {odd[0]!r} is not the name of an option")
    if mistakes:
        raise ConfigError("fedmosaic.run", mistakes)
    options = parser().parse_args(["run", "--engine", engine, f"--device={device}", "--", str(config)])
    options.shards = Path(shards) if shards is not None else None
    options.run_dir = Path(run_dir) if run_dir is not None else None
    options.resume = resume
    options.init = Path(init) if init is not None else None
    options.track = list(trackers)
    with _restored():
        folder = run_to_end(options, read(Path(config), dict(changes or {})), link=None)
    assert folder is not None
    return folder


@contextmanager
def _restored() -> Iterator[None]:
    """Restore at the end what a run in this process changes."""
    root = logging.getLogger()
    handlers, level, mask = root.handlers[:], root.level, os.umask(0o022)
    os.umask(mask)
    root.handlers.clear()  # a run closes the handlers that it finds
    try:
        with restored():
            yield
    finally:
        for handler in root.handlers[:]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        os.umask(mask)
