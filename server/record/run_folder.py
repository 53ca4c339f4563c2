"""What a run leaves on disk."""

import contextlib
import fcntl
import json
import logging
import os
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save

from common.blocks import Params
from common.config.experiment import Experiment
from common.errors import ConfigError, RunError
from server.record.checkpoint import Checkpoint, check_same, load_checkpoint
from server.record.files import append_line, write_whole

log = logging.getLogger(__name__)
LOOK_SECONDS, PATIENCE_SECONDS = 1.0, 120.0
METRICS, SUMMARY, STATUS, LOCK = "metrics.jsonl", "summary.json", "status.json", ".lock"
RESERVED_BYTES = 1 << 20


class RunFolder:
    """runs/<name>/: experiment.yaml, metrics.jsonl, model.safetensors, checkpoints/, summary.json, report.html.

    Whole files appear at once; metrics.jsonl grows by a line a round. A little space is reserved, so that a full disk
    does not keep the summary from saying so.

    resume: whether the folder has a run that goes on, from `checkpoint` (None: from its beginning); later lines of
    metrics.jsonl are dropped. Another process that still writes to the folder, e.g. a ServerApp that has not noticed
    yet that its SuperLink is dead, is waited for.

    Raises ConfigError when the folder has a run already, or one that cannot go on with these options; RunError when
    another process writes to it or nothing can be written.
    """

    def __init__(self, folder: Path, experiment: Experiment, resume: bool = False) -> None:
        if not resume and (folder / "experiment.yaml").exists():
            raise ConfigError("run folder", [f"{folder} has a run already, and a run never overwrites another"])
        self.folder = folder
        self.checkpoint: Checkpoint | None = None
        self._said: tuple[str, float | None] | None = None
        self._reserve = folder / ".reserve"
        write_whole(self._reserve, bytes(RESERVED_BYTES))
        self._claim(PATIENCE_SECONDS if resume else 0)
        if resume:
            self._go_on(experiment)
        write_whole(folder / "experiment.yaml", experiment.to_yaml().encode())

    def round(self, line: Mapping[str, Any]) -> None:
        """Append the figures of a round."""
        append_line(self.folder / METRICS, json.dumps(line, allow_nan=False))

    def status(self, text: str, until: float | None = None) -> None:
        """Say what goes on, for whoever follows the run. until: the time (seconds since 1970) up to which is waited.
        It is gone with a crash, which does no harm, so it need not be on the disk. What was said last is not said
        again."""
        if (text, until) == self._said:
            return
        self._said = text, until
        partial = self.folder / f".{STATUS}.partial"
        with contextlib.suppress(OSError):  # a full disk is told by what must be kept
            partial.write_text(json.dumps({"text": text, "until": until}))
            partial.replace(self.folder / STATUS)

    def model(self, params: Params, experiment: Experiment, classes: tuple[str, ...]) -> None:
        """Save the parameters, with what is needed to build their model."""
        about = {"experiment": experiment.to_json(), "classes": json.dumps(classes)}
        write_whole(self.folder / "model.safetensors", save(params, metadata=about))

    def summary(self, content: Mapping[str, Any]) -> None:
        """Save the summary: the last file of a run, so that its presence says that the run is over."""
        self._reserve.unlink(missing_ok=True)
        (self.folder / STATUS).unlink(missing_ok=True)
        write_whole(self.folder / SUMMARY, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")

    def _claim(self, seconds: float) -> None:
        """Hold a lock on the folder as long as this object, or its process, lives. seconds: how long to wait for the
        end of another holder."""
        lock = os.open(self.folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        self._release = weakref.finalize(self, os.close, lock)
        deadline = time.monotonic() + seconds
        while not _locked(lock):
            owner = os.pread(lock, 20, 0).decode()
            if time.monotonic() > deadline:
                raise RunError(f"process {owner} still writes to {self.folder}: wait for its end, or stop it")
            log.info("waiting for the end of process %s, which still writes to %s", owner, self.folder)
            time.sleep(LOOK_SECONDS)
        os.pwrite(lock, f"{os.getpid():<20}".encode(), 0)

    def _go_on(self, experiment: Experiment) -> None:
        check_unfinished(self.folder)
        self.checkpoint = load_checkpoint(self.folder)
        if self.checkpoint:
            check_same(experiment, self.checkpoint)
        done = self.checkpoint.round if self.checkpoint else -1
        log.info("going on after round %d", max(0, done))
        (self.folder / SUMMARY).unlink(missing_ok=True)
        kept = [line for line in read_rounds(self.folder) if line["round"] <= done]
        write_whole(self.folder / METRICS, "".join(json.dumps(line, allow_nan=False) + "\n" for line in kept).encode())


def _locked(file: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Whether an open file could be locked."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_written(folder: Path) -> bool:
    """Whether a run, or the process of one, still holds its folder; also true where this user may not look."""
    # A new run holds the lock before it writes its experiment, and a resumed one is patient: none is kept out by this.
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
    """The complete lines of a run folder's metrics.jsonl so far; none while there is no such file."""
    path = folder / METRICS
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_status(folder: Path) -> tuple[str, float | None]:
    """What goes on in a run, and up to when is waited; "" while nothing is known."""
    try:
        said = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        return str(said["text"]), None if said["until"] is None else float(said["until"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", None


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
    check_unfinished(folder)
    return folder


def check_unfinished(folder: Path) -> None:
    """Raises ConfigError when the run in a folder has run to its end."""
    summary = folder / SUMMARY
    if summary.exists() and json.loads(summary.read_text(encoding="utf-8"))["status"] == "completed":
        raise ConfigError("--resume", [f"{folder} has run to its end"])
