"""Runs put side by side: those that differ only in the seed are one row, the first row is what the others are paired
with."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from common.config.component import unknown
from common.config.yaml_file import read_yaml
from common.errors import ConfigError
from deploy.study.bench.statistics import Difference, Summary, over_seeds, paired
from server.record.checkpoint import FREE, flat
from server.report.page import accuracies, seconds, total
from server.report.run import Run, amount, mapping, number, read_run

EXPERIMENT = "experiment.yaml"
NO_SETTINGS = {"seed", *FREE}
"""Options that make no other row."""


@dataclass(frozen=True)
class Compared:
    """A run with its options by dotted name. label: its folder."""

    label: str
    options: Mapping[str, Any]
    run: Run

    @property
    def seed(self) -> int:
        """Of the experiment."""
        return int(self.options["seed"])

    @property
    def completed(self) -> bool:
        """Whether it ran to its end."""
        return self.run.summary.get("status") == "completed"

    @cached_property
    def measures(self) -> dict[str, float]:
        """By name: accuracy:SUBSET, macro_f1 with all modalities, rounds, bytes, seconds; what is not known is left
        out."""
        found = {f"accuracy:{name}": value for name, value in accuracies(self.run).items()}
        if (f1 := number(self.run.summary.get("macro_f1"))) is not None:
            found["macro_f1"] = f1
        moved = total(self.run, "bytes_up") + total(self.run, "bytes_down")
        return found | {"rounds": len(self.run.trained), "bytes": moved, "seconds": seconds(self.run)}

    @cached_property
    def data(self) -> list[Any]:
        """What the run tells of its data: equal for runs on equal shards."""
        sites = mapping(self.run.summary.get("sites"))
        held = {
            name: [mapping(site).get(key) for key in ("modalities", "num_examples")] for name, site in sites.items()
        }
        examples = {name: amount(mapping(figures).get("examples")) for name, figures in self.run.final.items()}
        return [self.run.summary.get("classes"), held, examples]


@dataclass(frozen=True)
class Row:
    """Runs that count as one. settings: the options that differ between rows, as far as this one has them."""

    runs: Sequence[Compared]
    settings: Mapping[str, str]

    @property
    def label(self) -> str:
        """The first run's folder, and how many more there are."""
        more = len(self.runs) - 1
        return f"{self.runs[0].label} + {more} more" if more else self.runs[0].label

    @property
    def seeds(self) -> list[int]:
        """Of the runs that ran to their end."""
        return sorted(run.seed for run in self.runs if run.completed)

    def measure(self, name: str) -> Summary | None:
        """Over the seeds of the runs that ran to their end; None where none has it."""
        return over_seeds({r.seed: r.measures[name] for r in self.runs if r.completed and name in r.measures})

    def difference(self, name: str, reference: "Row") -> Difference | None:
        """Paired by seed to another row; None with fewer than two pairs."""
        return None if reference is self else paired(self.measure(name), reference.measure(name))


@dataclass(frozen=True)
class Comparison:
    """The rows; the first is the reference."""

    rows: Sequence[Row]

    @property
    def reference(self) -> Row:
        """What the other rows are paired with."""
        return self.rows[0]

    @property
    def runs(self) -> list[Compared]:
        """All runs, row by row."""
        return [run for row in self.rows for run in row.runs]

    @property
    def subsets(self) -> list[str]:
        """Of modalities, those that any run has figures of; single ones first."""
        names = {name for run in self.runs for name in run.run.subsets}
        return sorted(names, key=lambda name: (name.count("+"), name))

    @property
    def measures(self) -> list[str]:
        """The names of `Compared.measures` that are shares: those that differences are told of."""
        return [*(f"accuracy:{name}" for name in self.subsets), "macro_f1"]

    def notes(self) -> list[str]:
        """What to know before one believes a difference."""
        found = [f"{run.label}: {_state(run)}; not among the figures" for run in self.runs if not run.completed]
        return found + [f"{row.label}: {note}" for row in self.rows[1:] for note in _incomparable(row, self.reference)]


def compare(folders: Sequence[Path], by: Sequence[str] = ()) -> Comparison:
    """Put runs side by side, in the order of their folders.

    by: options, or sections of them, that make a row each; by default all options but the seed, the name, and those
        that only decide how long to wait. A completed run whose seed its row has already begins another row.

    Raises ConfigError for a folder without a run, or an option that no run has.
    """
    runs = [_read(folder) for folder in folders]
    options = sorted({key for run in runs for key in run.options} - NO_SETTINGS)
    for name in by:
        if not _within(options, [name]):
            raise ConfigError("--by", [unknown("option", name, options)])
    deciding = _within(options, by) if by else options
    grouped: dict[tuple[Any, ...], list[Compared]] = {}
    seen: Counter[tuple[Any, ...]] = Counter()
    for run in runs:
        settings = tuple(_written(run, key) for key in deciding)
        earlier = seen[settings, run.seed] if run.completed else 0
        grouped.setdefault((earlier, *settings), []).append(run)
        seen[settings, run.seed] += run.completed
    shown = _differing(runs, options)
    return Comparison([Row(part, _settings(part, shown)) for part in grouped.values()])


def _read(folder: Path) -> Compared:
    if not (folder / EXPERIMENT).is_file():
        raise ConfigError("compare", [f"{folder} is no run's folder: it has no {EXPERIMENT}"])
    options = flat(read_yaml(folder / EXPERIMENT, "a run's options are a mapping"))
    if not isinstance(options.get("seed"), int):
        raise ConfigError(str(folder / EXPERIMENT), ["seed: a whole number is needed"])
    return Compared(folder.resolve().name, options, read_run(folder))


def _within(options: Sequence[str], names: Sequence[str]) -> list[str]:
    """The options that are named, or are in a section that is."""
    return [key for key in options if any(key == name or key.startswith(f"{name}.") for name in names)]


def _written(run: Compared, key: str) -> str:
    """The value of an option as JSON, empty where the run has no such option."""
    return json.dumps(run.options[key], default=str) if key in run.options else ""


def _differing(runs: Sequence[Compared], options: Sequence[str]) -> list[str]:
    """The options that differ; those that a component brings with it only where they differ among its users."""
    values = {key: {_written(run, key) for run in runs} for key in options}
    differ = [key for key in options if len(values[key]) > 1]
    named = {key.removesuffix("name") for key in differ if key.endswith(".name")}
    return [key for key in differ if key.endswith(".name") or not _is_in(key, named) or len(values[key] - {""}) > 1]


def _is_in(key: str, sections: set[str]) -> bool:
    return any(key.startswith(section) for section in sections)


def _settings(runs: Sequence[Compared], differing: Sequence[str]) -> dict[str, str]:
    """The values of the options that differ, as people write them; several where the runs do not agree."""
    values = {key: dict.fromkeys(_written(run, key).strip('"') for run in runs) for key in differing}
    return {key: " or ".join(value or "–" for value in found) for key, found in values.items() if any(found)}


def _state(run: Compared) -> str:
    status = str(run.run.summary.get("status") or "unfinished")
    return f"{status} after {len(run.run.trained)} rounds"


def _incomparable(row: Row, reference: Row) -> Iterator[str]:
    """Why differences between two rows are not those of the method alone."""
    pairs = [(own, other) for own in row.runs for other in reference.runs if own.seed == other.seed]
    if not pairs:
        yield f"no seed in common with {reference.label}, so other shards and test examples; nothing can be paired"
    elif row.seeds != reference.seeds:
        yield f"other seeds than {reference.label}, so the means are of other shards; differences are of common seeds"
    options = sorted(key for key in row.settings.keys() | reference.settings.keys() if key.startswith("data."))
    if other := [key for key in options if row.settings.get(key) != reference.settings.get(key)]:
        yield f"other data than {reference.label} ({', '.join(other)})"
    elif any(own.data != other.data for own, other in pairs if own.completed and other.completed):
        yield f"other shards or test examples than {reference.label}, although the options of the data are the same"
    if {run.run.measured_on for run in row.runs} != {run.run.measured_on for run in reference.runs}:
        yield f"measured on {row.runs[0].run.measured_on} examples, {reference.label} on others"
