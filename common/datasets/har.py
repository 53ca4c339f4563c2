"""har: activities of people who wear a phone and a watch. Each device has an accelerometer and a gyroscope.

M. Matey-Sanz, S. Casteleyn, C. Granell, "Dataset of inertial measurements of smartphones and smartwatches for human
activity recognition", Data in Brief, 2023 (GeoTecINIT/sp-sw-har-dataset). `signals_50hz.npz`: x [T, 12] in m/s² and
rad/s, y [T, 2] (the labels of each device), offset [N + 1] (the start and end of the N executions), subject [N],
execution [N], labels, channels. In an execution of about 12 s, a seated person gets up, walks, turns, walks back and
sits down again.
"""

import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.base import DataSet
from common.errors import DataError

SIGNALS = "signals_50hz.npz"
RATE = 50
CHANNELS = {f"{device}_{sensor}": [f"{device}_{sensor[0]}{axis}" for axis in "xyz"]
            for device in ("phone", "watch") for sensor in ("acc", "gyro")}  # fmt: skip


class Har(DataSet):
    """Each natural client has one subject. The examples do not depend on the seed, because nothing is drawn at
    random."""

    modalities: ClassVar[tuple[str, ...]] = tuple(CHANNELS)
    licence: ClassVar[str] = "CC BY 4.0 (sp-sw-har-dataset)"
    folders: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str
    """The folder with signals_50hz.npz."""
    seconds: float = Field(1.0, ge=1 / RATE)
    """Length of a window in seconds. Each window is inside one execution."""
    stride_seconds: float = Field(0.25, ge=1 / RATE)
    """Distance in seconds between the starts of two windows."""
    purity: float = Field(0.7, gt=0.5, le=1)
    """Minimum share of a window's samples that have its label, for each device. Other windows are left out. Most
    activities last little more than a second. If windows were longer or had to be purer, nearly all of them would show
    walking."""
    test_share: float = Field(0.25, gt=0, lt=1)
    """Share of each subject's executions that is in the test part. The last executions of a subject are in the test
    part, and no execution is cut: otherwise, windows of the same movement would be in both parts."""

    @property
    def classes(self) -> list[str]:
        """The activities in the order of their indices in the file."""
        return [str(label) for label in _read(Path(self.folder) / SIGNALS)["labels"]]

    def examples(self, part: str, seed: int) -> list[Example]:
        """Windows [T, 3] per sensor, as .npy files."""
        table = _read(Path(self.folder) / SIGNALS)
        tested = self._tested(table["subject"])
        return [
            self._example(table, execution, start, stop)
            for execution in range(len(table["subject"]))
            if (execution in tested) == (part == "test")
            for start, stop in self._windows(table, execution)
        ]

    def _tested(self, subjects: NDArray[np.int64]) -> set[int]:
        """The executions of the test part: at least one per subject, except for subjects with only one execution."""
        own = defaultdict(list)
        for execution, subject in enumerate(subjects.tolist()):
            own[subject].append(execution)
        counts = {s: min(max(1, round(self.test_share * len(runs))), len(runs) - 1) for s, runs in own.items()}
        return {execution for s, runs in own.items() for execution in runs[len(runs) - counts[s] :]}

    def _windows(self, table: Mapping[str, NDArray[Any]], execution: int) -> Iterator[tuple[int, int]]:
        """The index of the first sample and the index after the last sample of each window that is pure enough."""
        length, stride = round(self.seconds * RATE), round(self.stride_seconds * RATE)
        begin, end = table["offset"][execution : execution + 2].tolist()
        for start in range(begin, end - length + 1, stride):
            labels = table["y"][start : start + length]
            if ((labels == _majority(labels)).mean(axis=0) >= self.purity).all():
                yield start, start + length

    def _example(self, table: Mapping[str, NDArray[Any]], execution: int, start: int, stop: int) -> Example:
        channels = table["channels"].tolist()
        window = table["x"][start:stop]
        media = {m: _npy(window[:, [channels.index(name) for name in names]]) for m, names in CHANNELS.items()}
        name = f"{table['execution'][execution]}-{start - table['offset'][execution]:05d}"
        label = str(table["labels"][_majority(table["y"][start:stop])])
        return Example(name, label, media, f"subject-{table['subject'][execution]:02d}")


def _majority(labels: NDArray[np.int64]) -> int:
    """The most frequent label in the samples [T, 2] of both devices together."""
    return int(np.bincount(labels.ravel()).argmax())


def _npy(values: NDArray[np.float32]) -> Media:
    def data() -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(values))
        return buffer.getvalue()

    return Media(data, ".npy")


def _read(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            table = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"har: {path} cannot be read: {error}") from None
    if missing := {"x", "y", "offset", "subject", "execution", "labels", "channels"} - table.keys():
        raise DataError(f"har: {path} has no {', '.join(sorted(missing))}")
    if fault := _fault(table):
        raise DataError(f"har: {path}: {fault}")
    return table


def _fault(table: Mapping[str, NDArray[Any]]) -> str:
    """A message about an inconsistency in the file, or ""."""
    samples, offset = len(table["x"]), table["offset"]
    if absent := {name for names in CHANNELS.values() for name in names} - set(table["channels"].tolist()):
        return f"no channel {', '.join(sorted(absent))}"
    if table["x"].shape != (samples, len(table["channels"])) or table["y"].shape != (samples, 2):
        return f"signals {table['x'].shape} and labels {table['y'].shape} do not belong together"
    if not np.isfinite(table["x"]).all() or not np.isin(table["y"], np.arange(len(table["labels"]))).all():
        return "some signals are not finite, or some labels have no name"
    if len(offset) < 2 or offset[0] != 0 or offset[-1] != samples or (np.diff(offset) <= 0).any():
        return f"offset does not divide {samples} samples"
    if not len(table["subject"]) == len(table["execution"]) == len(offset) - 1:
        return f"{len(offset) - 1} executions, but {len(table['subject'])} subjects"
    return ""
