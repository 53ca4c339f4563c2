"""Runs an experiment from Python, with the same result as `fedmosaic run` on this machine."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Literal, get_args

from common.errors import ConfigError
from common.hardware.computing import restored
from deploy.cli import parser
from deploy.commands.run import run_to_end
from fedmosaic.experiments import Experiment, load_experiment
from fedmosaic.results import Run

Engine = Literal["inprocess", "simulation", "processes"]


def run(
    experiment: Experiment | str | os.PathLike[str],
    engine: Engine = "inprocess",
    changes: Mapping[str, Any] | None = None,
    shards: str | os.PathLike[str] | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str = "cpu",
    init: str | os.PathLike[str] | None = None,
    trackers: Sequence[str | Mapping[str, Any]] = (),
    quiet: bool = False,
) -> Run:
    """Run an experiment to its end and return the run.

    experiment: a YAML file, or the result of `load_experiment`. changes: for a file, values by dotted option, e.g.
    {"train.lr": 0.1}. shards: the clients' shards; None: shards/NAME, which are made if they are absent. run_dir: the
    folder of the run; None: a new folder runs/NAME. resume: whether to continue the unfinished run in that folder.
    device: the device of the clients: auto, cpu, cuda, cuda:N or mps. init: a run, an exported folder or a .safetensors
    file of one of them with the model to start from; None: random weights. trackers: show the figures of the run while
    it runs, each by its name or as a mapping with its name and options. quiet: whether to print nothing.

    With the engine "inprocess", the run takes over the root logger, the umask, and torch's threads and determinism of
    this process until it ends.

    Raises ConfigError with every mistake of the arguments or of the experiment, RunError when the run fails, and the
    other errors of `common.errors`.
    """
    mistakes = []
    if engine not in get_args(Engine):
        mistakes.append(f"engine: {engine!r} is not one of {', '.join(get_args(Engine))}")
    if isinstance(experiment, Experiment) and changes:
        mistakes.append("changes: the experiment is read already; give the changes to load_experiment")
    if mistakes:
        raise ConfigError("fedmosaic.run", mistakes)
    options = parser().parse_args(["run", "--engine", engine, f"--device={device}", "--", "experiment"])
    options.shards = _path(shards)
    options.run_dir = _path(run_dir)
    options.resume = resume
    options.init = _path(init)
    options.track = list(trackers)
    with _restored(), _silent() if quiet else nullcontext():
        chosen = experiment if isinstance(experiment, Experiment) else load_experiment(experiment, changes)
        folder = run_to_end(options, chosen, link=None)
    assert folder is not None
    return Run(folder)


def _path(given: str | os.PathLike[str] | None) -> Path | None:
    return None if given is None else Path(given)


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what is printed."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


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
