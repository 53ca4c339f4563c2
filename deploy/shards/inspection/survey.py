"""A survey of a shard: it reads every file once, as training does, and counts."""

import math
import os
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from PIL.Image import Image

from common.data.finder import Finder
from common.data.observation import measured, no_notes
from common.data.shard import Record, Shard
from common.encoders.base import Encoder
from common.findings import Findings
from common.media.pictures import BRIGHTEST
from common.media.table_row import TableRow
from common.media.values import Raw, Value
from common.modality import Modality, subset_name, subsets
from common.seeding import rng
from common.tasks.base import Task
from common.tasks.labels import NO_LABEL, in_words, names_in
from deploy.progress import tracked
from deploy.shards.inspection.generated import Generated, read_generated
from deploy.shards.inspection.labels import (
    LabelSets,
    TargetSeen,
    label_sets,
    targets_seen,
    task_line,
    unlike_labels,
)
from deploy.shards.inspection.tables import TableSeen, unlike_columns

SAMPLE_SEED = 1
METADATA = "metadata.jsonl"
NOTHING = "nothing"
"""The name of the pattern for examples without a readable value."""


@dataclass(frozen=True)
class Broken:
    """A file that cannot be read. file: its name in the shard."""

    id: str
    modality: Modality
    file: str
    reason: str


@dataclass
class Values:
    """The readable values of one modality. lengths: in the unit of `measured`. brightest: the largest value in pictures
    of 16 bits, or 0."""

    finder: Finder
    lengths: list[float] = field(default_factory=list)
    unit: str = ""
    brightest: int = 0

    def add(self, raw: Raw) -> None:
        """Note the length of a value."""
        _, length, self.unit = measured(raw)
        self.lengths.append(length)
        if isinstance(raw, Image):
            self.brightest = max(self.brightest, raw.info.get(BRIGHTEST, 0))

    @property
    def form(self) -> str:
        """The most frequent form, and the number of values with other forms."""
        forms = self.finder.forms
        most = "".join(form for form, _ in forms.most_common(1))
        others = forms.total() - forms[most]
        return f"{most}; {others} others" if others else most

    @property
    def extent(self) -> str:
        """The range and the median of the lengths."""
        if not self.lengths:
            return ""
        low, middle, high = (f"{of(self.lengths):.3g}" for of in (min, statistics.median, max))
        if low == high:
            return f"{low} {self.unit.removesuffix('s') if low == '1' else self.unit}"
        return f"{low} to {high} {self.unit}, median {middle}"

    @property
    def range(self) -> str:
        """The range of the numbers in the values."""
        low, high = self.finder.low, self.finder.high
        return f"{low:.3g} to {high:.3g}" if math.isfinite(low) and math.isfinite(high) else ""

    def to_json(self) -> dict[str, Any]:
        """JSON values of the figures."""
        found, low, high = self.finder.found(), self.finder.low, self.finder.high
        said: dict[str, Any] = {
            "values": len(self.lengths),
            "forms": dict(self.finder.forms.most_common()),
            "constant": found.constant,
            "conflicting": [[record.id for record in same] for same in self.finder.conflicts()],
        }
        if self.lengths:
            said |= {"unit": self.unit, "shortest": min(self.lengths), "longest": max(self.lengths)}
        return said | ({"lowest": low, "highest": high} if math.isfinite(low) and math.isfinite(high) else {})


@dataclass(frozen=True)
class Other:
    """A shard with which this one is compared."""

    site: str
    findings: Mapping[Modality, Findings]


class Looker(Protocol):
    """An object that receives the values while they are in memory."""

    def look(self, record: Record, values: Mapping[Modality, Raw], broken: Mapping[Modality, str]) -> None:
        """Receive an example with its readable values, and the reasons why others cannot be read."""


@dataclass
class Survey:
    """The content of a shard. Broken files count as missing, as in training.

    examples: number by class or label. values: number by class or label, and modality. patterns: number of examples by
    the modalities that they have. task: the task of the experiment that checks the values. tables: the distributions of
    columns. sets: the labels of multi-label. targets: those of a regression. unlike: differences to the labels and
    tables of the other shard.
    """

    shard: Shard
    generated: list[Generated]
    modalities: dict[Modality, Values]
    examples: Counter[str] = field(default_factory=Counter)
    values: Counter[tuple[str, Modality]] = field(default_factory=Counter)
    patterns: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)
    encoders: Mapping[Modality, Encoder] = field(default_factory=dict)
    task: Task | None = None
    duplicates: dict[Modality, int] = field(default_factory=dict)
    other: Other | None = None
    tables: dict[Modality, TableSeen] = field(default_factory=dict)
    unlike: list[str] = field(default_factory=list)
    sets: LabelSets | None = None
    targets: Mapping[str, TargetSeen] = field(default_factory=dict)

    @property
    def task_line(self) -> str:
        """The line `task` of an experiment for this shard."""
        return task_line(self.shard.info, self.targets)

    def add(self, record: Record, looker: Looker | None) -> None:
        """Read the values of an example and count them."""
        raws, broken = dict[Modality, Raw](), dict[Modality, str]()
        for modality in self.modalities:
            if record.has(modality):
                rate = self.shard.info.rates.get(modality)
                self._read(record, modality, Value(record.value(modality), rate=rate), raws, broken)
        named = names_in(self.shard.info.task, record.label)
        self.examples.update(named)
        self.patterns[subset_name(raws) or NOTHING] += 1
        for modality, raw in raws.items():
            self.modalities[modality].add(raw)
            self.values.update((name, modality) for name in named)
            if isinstance(raw, TableRow) and modality in self.tables:
                self.tables[modality].add(raw, in_words(record.label) if record.label != NO_LABEL else "")
        for found in self.generated:
            if (value := found.values.get(record.id)) is not None and found.modality not in raws | broken:
                self._read(record, found.modality, Value(value, generated=True), raws, broken)
        if looker:
            looker.look(record, raws, broken)

    def _read(
        self, record: Record, modality: Modality, value: Value, raws: dict[Modality, Raw], broken: dict[Modality, str]
    ) -> None:
        finder = Finder(modality) if value.generated else self.modalities[modality].finder
        encoder = self.encoders.get(modality)
        note = encoder.notes if encoder else no_notes
        raw = finder.take(record, value, partial(_checked, encoder=encoder), note)
        if raw is not None:
            raws[modality] = raw
            return
        broken[modality] = finder.broken[record.id]
        self.broken.append(Broken(record.id, modality, self._name_of(value), broken[modality]))

    def _name_of(self, value: Value) -> str:
        if not isinstance(value.source, Path):
            return METADATA
        return os.path.relpath(value.source, self.shard.folder.resolve())

    def findings(self) -> dict[Modality, Findings]:
        """The findings by modality, as in a site's introduction."""
        return {modality: values.finder.found() for modality, values in self.modalities.items()}

    @property
    def complete(self) -> int:
        """The number of examples with all modalities of the shard."""
        return self.patterns[subset_name(self.modalities)]

    @property
    def pattern_names(self) -> list[str]:
        """The patterns that occur, from examples without a value to the largest subset."""
        possible = [NOTHING, *map(subset_name, subsets(self.modalities))]
        return [name for name in possible if self.patterns[name]]

    def to_json(self) -> dict[str, Any]:
        """JSON values of the whole survey."""
        info, names = self.shard.info, list(self.modalities)
        return {
            "site": info.site,
            "licence": info.licence,
            "made": info.made,
            "examples": len(self.shard.records),
            "task": info.task,
            "classes": {
                label: {"examples": self.examples[label], **{m: self.values[label, m] for m in names}}
                for label in info.classes
                if info.task != "regression"
            },
            "labels": self.sets.to_json() if self.sets else {},
            "targets": {name: target.to_json() for name, target in self.targets.items()},
            "experiment": self.task_line,
            "modalities": {
                modality: values.to_json() for modality, values in self.modalities.items()
            },
            "tables": {
                modality: {name: seen.to_json() for name, seen in table.columns.items()}
                for modality, table in self.tables.items()
            },
            "duplicates": self.duplicates,
            "patterns": {name: self.patterns[name] for name in self.pattern_names},
            "generated": [
                {"modality": made.modality, "completer": made.completer, "values": len(made.values),
                 "rejected": made.rejected, "failed": made.failed}
                for made in self.generated
            ],
            "broken": [vars(broken) for broken in self.broken],
        }  # fmt: skip


def _checked(raw: Raw, encoder: Encoder | None) -> Raw:
    if encoder is not None:
        encoder.check(raw)
    return raw


def survey(
    shard: Shard,
    looker: Looker | None = None,
    encoders: Mapping[Modality, Encoder] | None = None,
    other: Shard | None = None,
    task: Task | None = None,
) -> Survey:
    """Read every value of a shard, with a progress bar.

    encoders: the encoders of an experiment, which check each value. other: a shard, e.g. the test shard, that should
    not share files with this one. task: the task of the experiment.

    Raises ShardError when the folder of generated values does not have the form that `fedmosaic complete` writes.
    """
    found = _survey(shard, looker, encoders or {})
    found.task = task
    if other is not None:
        compared = _survey(other, None, {})
        theirs, found.other = compared.modalities, Other(other.info.site, compared.findings())
        found.unlike += [*unlike_labels(shard.info, other.info), *unlike_columns(shard.columns, other.columns)]
        for modality in found.modalities.keys() & theirs.keys():
            same = found.modalities[modality].finder.digests & theirs[modality].finder.digests
            found.duplicates |= {modality: len(same)} if same else {}
    return found


def sampled(shard: Shard, count: int) -> Shard:
    """The shard with `count` of its examples, the same ones in each call, or the whole shard if it has fewer."""
    if count >= len(shard.records):
        return shard
    chosen = sorted(rng(SAMPLE_SEED, "sample").permutation(len(shard.records))[:count])
    return replace(shard, records=[shard.records[index] for index in chosen])


def _survey(shard: Shard, looker: Looker | None, encoders: Mapping[Modality, Encoder]) -> Survey:
    values = {m: Values(Finder(m)) for m in sorted(shard.info.modalities)}
    tables = {m: TableSeen(columns) for m, columns in shard.columns.items()}
    found = Survey(shard, read_generated(shard), values, encoders=encoders, tables=tables)
    labels = [record.label for record in shard.records]
    found.sets, found.targets = label_sets(shard.info, labels), targets_seen(shard.info, labels)
    for record in tracked(shard.records, "reading"):
        found.add(record, looker)
    return found
