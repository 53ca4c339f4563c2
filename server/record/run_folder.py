"""The files of a run."""

import contextlib
import fcntl
import json
import logging
import os
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from common.blocks import Params
from common.build import bases
from common.config.experiment import Experiment
from common.errors import ConfigError, RunError
from common.trained.saved_model import BEST, WEIGHTS
from server.record.checkpoint import Checkpoint, check_same, load_checkpoint
from server.record.files import append_line, write_whole

log = logging.getLogger(__name__)
LOOK_SECONDS, PATIENCE_SECONDS = 1.0, 120.0
METRICS, SUMMARY, STATUS, LOCK = "metrics.jsonl", "summary.json", "status.json", ".lock"
GIVEN = ".given.json"
RESERVED_BYTES = 1 << 20


class RunFolder:
    """runs/<name>/: experiment.yaml, metrics.jsonl, model.safetensors, best.safetensors, checkpoints/, summary.json,
    report.html.

    Files appear complete, except metrics.jsonl, which grows by one line per round. A little disk space is reserved, so
    that the summary can still be written when the disk is full.

    listeners: get the figures of each round after they are saved.

    resume: whether to continue the run in the folder, from `checkpoint` (None: from its beginning). This removes later
    lines of metrics.jsonl. It waits for another process that still writes to the folder, e.g. a ServerApp that has not
    noticed yet that its SuperLink is dead.

    Raises ConfigError when the folder already has a run, or when the run cannot be resumed with these options. Raises
    RunError when another process writes to the folder, or when nothing can be written.
    """

    def __init__(self, folder: Path, experiment: Experiment, resume: bool = False) -> None:
        if not resume and (folder / "experiment.yaml").exists():
            raise ConfigError("run folder", [f"{folder} already contains a run; name a new folder"])
        self.folder = folder
        self.checkpoint: Checkpoint | None = None
        self.listeners: list[Callable[[Mapping[str, Any]], None]] = []
        self._said: tuple[str, float | None] | None = None
        self._reserve = folder / ".reserve"
        write_whole(self._reserve, bytes(RESERVED_BYTES))
        self._claim(PATIENCE_SECONDS if resume else 0)
        if resume:
            self._go_on(experiment)
        self.experiment(experiment)

    def experiment(self, experiment: Experiment) -> None:
        """Save the experiment."""
        write_whole(self.folder / "experiment.yaml", experiment.to_yaml().encode())

    def round(self, line: Mapping[str, Any]) -> None:
        """Append the figures of a round, and pass them to the listeners."""
        append_line(self.folder / METRICS, json.dumps(line, allow_nan=False))
        for listener in self.listeners:
            listener(line)

    def status(self, text: str, until: float | None = None) -> None:
        """Write the current status for programs that follow the run. An unchanged status is not written again.

        until: the deadline of a wait, in seconds since 1970. The file is not forced to the disk, because the status is
        useless after a crash.
        """
        if (text, until) == self._said:
            return
        self._said = text, until
        partial = self.folder / f".{STATUS}.partial"
        with contextlib.suppress(OSError):  # important files report a full disk
            partial.write_text(json.dumps({"text": text, "until": until}))
            partial.replace(self.folder / STATUS)

    def model(self, params: Params, experiment: Experiment, classes: tuple[str, ...]) -> None:
        """Save the last parameters, with the experiment, the classes and the descriptions of pre-trained weights that
        are needed to build their model."""
        self._save(WEIGHTS, params, experiment, classes)

    def best(
        self, params: Params, experiment: Experiment, classes: tuple[str, ...], about: Mapping[str, Any] | None
    ) -> None:
        """Save the best parameters in the same way. about: the entry `best` of the summary."""
        self._save(BEST, params, experiment, classes, best=json.dumps(about))

    def only_best(self) -> None:
        """Remove the last model, so that the best one is the model of the run."""
        (self.folder / WEIGHTS).unlink(missing_ok=True)

    def begin_with(self, file: Path, digest: str) -> None:
        """Note the given model with which the run begins, in case that it is resumed before its first checkpoint."""
        write_whole(self.folder / GIVEN, json.dumps({"file": str(file), "sha256": digest}).encode())

    def given(self) -> dict[str, str] | None:
        """The given model with which the run began."""
        path = self.folder / GIVEN
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def _save(self, name: str, params: Params, experiment: Experiment, classes: tuple[str, ...], **more: str) -> None:
        known = {m: next(iter(found)) for m, found in bases(experiment.model).items() if len(found) == 1}
        about = {"experiment": experiment.to_json(), "classes": json.dumps(classes), "frozen": json.dumps(known)}
        write_whole(self.folder / name, save(params, metadata=about | more))

    def summary(self, content: Mapping[str, Any]) -> None:
        """Save the summary. It is the last file of a run, so its presence means that the run is over."""
        self._reserve.unlink(missing_ok=True)
        (self.folder / STATUS).unlink(missing_ok=True)
        write_whole(self.folder / SUMMARY, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")

    def _claim(self, seconds: float) -> None:
        """Lock the folder as long as this object and its process exist. seconds: how long to wait for another owner of
        the lock."""
        lock = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        self._release = weakref.finalize(self, os.close, lock)
        deadline = time.monotonic() + seconds
        while not _locked(lock):
            owner = os.pread(lock, 20, 0).decode().strip()
            if time.monotonic() > deadline:
                raise RunError(f"process {owner} still writes to {self.folder}: wait for its end, or stop it")
            log.info("waiting until process %s ends, which still writes to %s", owner, self.folder)
            time.sleep(LOOK_SECONDS)
        os.pwrite(lock, f"{os.getpid():<20}".encode(), 0)

    def _go_on(self, experiment: Experiment) -> None:
        check_unfinished(self.folder)
        self.checkpoint = load_checkpoint(self.folder)
        if self.checkpoint:
            check_same(experiment, self.checkpoint)
        done = self.checkpoint.round if self.checkpoint else -1
        log.info("continuing after round %d", max(0, done))
        (self.folder / SUMMARY).unlink(missing_ok=True)
        kept = [line for line in read_rounds(self.folder) if line["round"] <= done]
        write_whole(self.folder / METRICS, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept).encode())


def _locked(file: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file. Returns False if another process has a lock on it."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_written(folder: Path) -> bool:
    """Whether a process still writes to a run folder. Also True if this user may not read the lock."""
    # This short lock disturbs no run: a new run locks before it writes experiment.yaml, and a resumed run waits.
    if not (folder / "experiment.yaml").exists():
        return False
    try:
        with (folder / LOCK).open("rb") as lock:
            return not _locked(lock.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True


def read_rounds(folder: Path) -> list[dict[str, Any]]:
    """The complete lines of a run folder's metrics.jsonl so far; empty if the file does not exist."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_status(folder: Path) -> tuple[str, float | None]:
    """The status of a run and its deadline in seconds since 1970; ("", None) while nothing is known."""
    try:
        said = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        return str(said["text"]), None if said["until"] is None else float(said["until"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", None


def free_folder(wanted: Path) -> Path:
    """The folder, or if it exists, the first of <name>-2, <name>-3, ... that does not exist."""
    folder, number = wanted, 1
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def unfinished_folder(wanted: Path) -> Path:
    """The folder of the run to resume: the last existing one of <name>, <name>-2, <name>-3, ...

    Raises ConfigError when there is none, or when the run has finished.
    """
    if not wanted.exists():
        raise ConfigError("--resume", [f"there is no run in {wanted}"])
    folder, number = wanted, 2
    while (later := wanted.with_name(f"{wanted.name}-{number}")).exists():
        folder, number = later, number + 1
    check_unfinished(folder)
    return folder


def check_unfinished(folder: Path) -> None:
    """Raises ConfigError when the run in a folder has finished."""
    summary = folder / SUMMARY
    if summary.exists() and json.loads(summary.read_text(encoding="utf-8"))["status"] == "completed":
        raise ConfigError("--resume", [f"{folder}: this run has finished already"])
