"""Every file of a shard read once, as training reads it, and counted."""

import os
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from common.data.media import Raw, Sound, Value
from common.data.shard import Record, Shard
from common.types import Modality, subset_name, subsets
from deploy.inspection.generated import Generated, read_generated
from deploy.progress import tracked

NOTHING = "nothing"
"""The name of the pattern of an example without any readable value."""


@dataclass(frozen=True)
class Broken:
    """A file that cannot be read, by its name in the shard."""

    id: str
    modality: Modality
    file: str
    reason: str


@dataclass
class Values:
    """The readable values of one modality. lengths: in the unit that `measured` gives."""

    forms: Counter[str] = field(default_factory=Counter)
    lengths: list[float] = field(default_factory=list)
    unit: str = ""

    def add(self, raw: Raw) -> None:
        """Count a value in."""
        form, length, self.unit = measured(raw)
        self.forms[form] += 1
        self.lengths.append(length)

    @property
    def form(self) -> str:
        """The most frequent form, and how many others there are."""
        most = "".join(form for form, _ in self.forms.most_common(1))
        others = self.forms.total() - self.forms[most]
        return f"{most}; {others} others" if others else most

    @property
    def extent(self) -> str:
        """From the shortest to the longest."""
        if not self.lengths:
            return ""
        low, middle, high = (f"{of(self.lengths):.3g}" for of in (min, statistics.median, max))
        if low == high:
            return f"{low} {self.unit.removesuffix('s') if low == '1' else self.unit}"
        return f"{low} to {high} {self.unit}, median {middle}"


class Looker(Protocol):
    """Whoever wants to see the values while they are in memory."""

    def look(self, record: Record, values: Mapping[Modality, Raw], broken: Mapping[Modality, str]) -> None:
        """An example with its readable values, and the reasons why others cannot be read."""


@dataclass
class Survey:
    """What a shard holds. Broken files count as missing, as they do in training.

    examples, values: by class, and by class and modality; patterns: examples by the modalities that they have.
    """

    shard: Shard
    generated: list[Generated]
    modalities: dict[Modality, Values]
    examples: Counter[str] = field(default_factory=Counter)
    values: Counter[tuple[str, Modality]] = field(default_factory=Counter)
    patterns: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)

    def add(self, record: Record, looker: Looker | None) -> None:
        """Read the values of an example and count them."""
        raws, broken = dict[Modality, Raw](), dict[Modality, str]()
        for modality in self.modalities:
            if record.has(modality):
                self._read(record.id, modality, record.value(modality), raws, broken)
        self.examples[record.label] += 1
        self.patterns[subset_name(raws) or NOTHING] += 1
        for modality, raw in raws.items():
            self.modalities[modality].add(raw)
            self.values[record.label, modality] += 1
        for found in self.generated:
            if (value := found.values.get(record.id)) is not None and found.modality not in raws | broken:
                self._read(record.id, found.modality, value, raws, broken)
        if looker:
            looker.look(record, raws, broken)

    def _read(
        self, name: str, modality: Modality, value: str | Path, raws: dict[Modality, Raw], broken: dict[Modality, str]
    ) -> None:
        try:
            raws[modality] = Value(value).read()
        except ValueError as error:
            file = Path(os.path.relpath(value, self.shard.folder.resolve()))
            broken[modality] = str(error).removeprefix(f"{file.name}: ")
            self.broken.append(Broken(name, modality, str(file), broken[modality]))

    @property
    def complete(self) -> int:
        """Examples that miss no modality of the shard."""
        return self.patterns[subset_name(self.modalities)]

    @property
    def pattern_names(self) -> list[str]:
        """The patterns that occur, the largest subsets last, and examples without anything first."""
        possible = [NOTHING, *map(subset_name, subsets(self.modalities))]
        return [name for name in possible if self.patterns[name]]

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""
        info, names = self.shard.info, list(self.modalities)
        return {
            "site": info.site,
            "licence": info.licence,
            "made": info.made,
            "examples": len(self.shard.records),
            "classes": {
                label: {"examples": self.examples[label], **{m: self.values[label, m] for m in names}}
                for label in info.classes
            },
            "modalities": {
                modality: {"values": values.forms.total(), "forms": dict(values.forms.most_common()), **_range(values)}
                for modality, values in self.modalities.items()
            },
            "patterns": {name: self.patterns[name] for name in self.pattern_names},
            "generated": [
                {"modality": made.modality, "completer": made.completer, "values": len(made.values),
                 "rejected": made.rejected, "failed": made.failed}
                for made in self.generated
            ],
            "broken": [vars(broken) for broken in self.broken],
        }  # fmt: skip


def _range(values: Values) -> dict[str, Any]:
    if not values.lengths:
        return {}
    return {"unit": values.unit, "shortest": min(values.lengths), "longest": max(values.lengths)}


def survey(shard: Shard, looker: Looker | None = None) -> Survey:
    """Read every value of a shard, with a bar where that takes long.

    Raises ShardError when the folder of generated values is not as `fedmosaic complete` writes it.
    """
    found = Survey(shard, read_generated(shard), {m: Values() for m in sorted(shard.info.modalities)})
    for record in tracked(shard.records, "reading"):
        found.add(record, looker)
    return found


def measured(raw: Raw) -> tuple[str, float, str]:
    """What kind of value it is, its length, and the unit of the length."""
    if isinstance(raw, Sound):
        return f"sound, {raw.rate} Hz, {_channels(raw.samples.shape[1])}", len(raw.samples) / raw.rate, "seconds"
    if isinstance(raw, Image.Image):
        return f"picture, {raw.width} × {raw.height}, {raw.mode}", max(raw.size), "pixels"
    if isinstance(raw, str):
        return "text", len(raw.split()), "words"
    if is_frames(raw):
        return f"frames, {raw.shape[2]} × {raw.shape[1]}", len(raw), "frames"
    if raw.ndim in (1, 2):
        return f"signal, {_channels(raw[0].size)}", len(raw), "samples"
    return f"array, {' × '.join(map(str, raw.shape))}", raw.size, "numbers"


def _channels(count: int) -> str:
    return f"{count} channel{'s' * (count != 1)}"


def is_frames(array: np.ndarray[Any, Any]) -> bool:
    """Whether an array is [T, H, W, 3], the frames of a video."""
    return array.ndim == 4 and array.shape[3] == 3
