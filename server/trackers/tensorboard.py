"""TensorBoard: event files that grow during the run, for `tensorboard --logdir`.

The files are written here, in TensorBoard's format, because its own writer hides the error of a full disk in a thread.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import field_validator

from common.config.experiment import Experiment
from server.record.scalars import scalars
from server.trackers.base import Tracker, TrackerOptions
from server.trackers.shared.packages import needed

EVENTS = "tensorboard"
VERSION = "brain.Event:2"
"""The first event of a file, which TensorBoard requires."""


class TensorBoardTracker(Tracker):
    """One event per number and round. A resumed run adds a file that replaces the rounds from its first one on."""

    def __init__(self, options: "TensorBoard") -> None:
        self._options, self._resumed = options, False
        self._file: BinaryIO | None = None

    def begin(self, experiment: Experiment, folder: Path, resumed: bool) -> None:
        """Start a file in a folder, which it makes."""
        self._events = needed("tensorboard.compat.proto.event_pb2", EVENTS)
        self._values = needed("tensorboard.compat.proto.summary_pb2", EVENTS)
        records = needed("tensorboard.summary.writer.record_writer", EVENTS)
        target = Path(self._options.folder) / folder.name if self._options.folder else folder / EVENTS
        target.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file, self._resumed = (target / name).open("wb"), resumed
        self._records = records.RecordWriter(self._file)
        self._write(file_version=VERSION)

    def round(self, line: Mapping[str, Any]) -> None:
        """Write the numbers of the line, with the round as their step."""
        if self._resumed:  # TensorBoard drops earlier events of this step and of later steps
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step=line["round"], session_log=start)
            self._resumed = False
        numbers = [self._values.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line)]
        self._write(step=line["round"], summary=self._values.Summary(value=numbers))

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _write(self, **content: Any) -> None:
        self._records.write(self._events.Event(wall_time=time.time(), **content).SerializeToString())
        self._records.flush()


class TensorBoard(TrackerOptions):
    """Event files of each number of metrics.jsonl. Package: `fedmosaic[tensorboard]`."""

    folder: str | None = None
    """A folder in which each run gets a folder of its name, on the server's host. None: `tensorboard` in the run
    folder."""

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: str | None) -> str | None:
        return str(Path(folder).resolve()) if folder else None

    def build(self) -> TensorBoardTracker:
        """A tracker for one run."""
        return TensorBoardTracker(self)
