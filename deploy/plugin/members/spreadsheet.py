"""A table of all figures for spreadsheets: figures.csv in the run folder, with one row per figure and round."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from common.config.experiment import Experiment
from server.record.scalars import scalars
from server.trackers.base import Tracker, TrackerOptions


class SpreadsheetTracker(Tracker):
    """Appends to one file. A resumed run adds its rounds at the end."""

    def __init__(self) -> None:
        self._file: TextIO | None = None

    def begin(self, experiment: Experiment, folder: Path, resumed: bool) -> None:
        """Open the file."""
        self._file = (folder / "figures.csv").open("a", encoding="utf-8", newline="")

    def round(self, line: Mapping[str, Any]) -> None:
        """Write round, name and value of each figure."""
        assert self._file is not None
        csv.writer(self._file).writerows((line["round"], name, value) for name, value in scalars(line))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


class Spreadsheet(TrackerOptions):
    """The table has no options."""

    def build(self) -> SpreadsheetTracker:
        """A tracker for one run."""
        return SpreadsheetTracker()
