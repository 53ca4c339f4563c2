"""Comparison of runs. Runs that differ only in the seed are one row. The first row is the reference for the others."""

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
from common.words.figures import LEADING
from deploy.study.bench.statistics import Difference, Summary, over_seeds, paired
from deploy.study.finished import EXPERIMENT, read_known
from server.record.checkpoint import FREE, flat
from server.report.page import final_figure, scores, seconds, total
from server.report.run import Run, amount, mapping, number

NO_SETTINGS = {"seed", *FREE}
"""Options whose differences do not make a separate row."""


@dataclass(frozen=True)
class Compared:
    """A run with its options by dotted name. label: its folder."""

    label: str
    options: Mapping[str, Any]
    run: Run

    @property
    def seed(self) -> int:
        """The seed of the experiment."""
        return int(self.options["seed"])

    @property
    def completed(self) -> bool:
        """Whether the run finished."""
        return self.run.summary.get("status") == "completed"

    @cached_property
    def measures(self) -> dict[str, float]:
        """The known figures by name: METRIC:SUBSET for the main metric, the second metric of the task with all
        modalities, rounds, bytes and seconds."""
        found = {f"{self.run.metric}:{name}": value for name, value in scores(self.run).items()}
        second = LEADING[self.run.task][1]
        if (value := number(final_figure(self.run, self.run.full, second))) is not None:
            found[second] = value
        moved = total(self.run, "bytes_up") + total(self.run, "bytes_down")
        return found | {"rounds": len(self.run.trained), "bytes": moved, "seconds": seconds(self.run)}

    @cached_property
    def data(self) -> list[Any]:
        """Facts about the data of the run. They are equal for runs on the same shards."""
        sites = mapping(self.run.summary.get("sites"))
        held = {
            name: [mapping(site).get(key) for key in ("modalities", "num_examples")] for name, site in sites.items()
        }
        examples = {name: amount(mapping(figures).get("examples")) for name, figures in self.run.final.items()}
        return [self.run.summary.get("classes"), held, examples]


@dataclass(frozen=True)
class Row:
    """Runs that differ only in the seed. settings: this row's values of the options that differ between rows."""

    runs: Sequence[Compared]
    settings: Mapping[str, str]

    @property
    def label(self) -> str:
        """The first run's folder, and the number of further runs."""
        more = len(self.runs) - 1
        return f"{self.runs[0].label} + {more} more" if more else self.runs[0].label

    @property
    def seeds(self) -> list[int]:
        """The seeds of the finished runs."""
        return sorted(run.seed for run in self.runs if run.completed)

    def measure(self, name: str) -> Summary | None:
        """The summary of a measure over the seeds of the finished runs, or None if no run has the measure."""
        return over_seeds({r.seed: r.measures[name] for r in self.runs if r.completed and name in r.measures})

    def difference(self, name: str, reference: "Row") -> Difference | None:
        """The difference to another row, paired by seed, or None with fewer than two pairs."""
        return None if reference is self else paired(self.measure(name), reference.measure(name))


@dataclass(frozen=True)
class Comparison:
    """The rows of a comparison. The first row is the reference."""

    rows: Sequence[Row]

    @property
    def reference(self) -> Row:
        """The row with which the other rows are paired."""
        return self.rows[0]

    @property
    def runs(self) -> list[Compared]:
        """All runs, by row."""
        return [run for row in self.rows for run in row.runs]

    @property
    def subsets(self) -> list[str]:
        """The subsets of modalities for which a run has figures, from single modalities to the largest subset."""
        names = {name for run in self.runs for name in run.run.subsets}
        return sorted(names, key=lambda name: (name.count("+"), name))

    @property
    def measures(self) -> list[str]:
        """The names of `Compared.measures` about the quality of models. The table has differences only for these."""
        return [*(f"{self.metric}:{name}" for name in self.subsets), LEADING[self.task][1]]

    @property
    def task(self) -> str:
        """The task of all runs."""
        return self.runs[0].run.task

    @property
    def metric(self) -> str:
        """The main metric of the task."""
        return LEADING[self.task][0]

    def notes(self) -> list[str]:
        """Warnings about differences that can mislead."""
        found = [f"{run.label}: {_state(run)}; not in the figures" for run in self.runs if not run.completed]
        return found + [f"{row.label}: {note}" for row in self.rows[1:] for note in _incomparable(row, self.reference)]


def compare(folders: Sequence[Path], by: Sequence[str] = ()) -> Comparison:
    """Compare runs, in the order of their folders.

    by: options or sections that separate rows; by default all options except the seed, the name, and waiting times. If
    a row already has a finished run with the same seed, a finished run begins another row.

    Raises ConfigError for a folder without a run, or for an option that no run has.
    """
    runs = [_read(folder) for folder in folders]
    if len(tasks := sorted({run.run.task for run in runs})) > 1:
        raise ConfigError(
            "compare", [f"the runs have different tasks, {' and '.join(tasks)}; compare those of one task"]
        )
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
    run = read_known("compare", folder)
    options = flat(read_yaml(folder / EXPERIMENT, "a run's options are a mapping"))
    if not isinstance(options.get("seed"), int):
        raise ConfigError(str(folder / EXPERIMENT), ["seed: a whole number is needed"])
    return Compared(folder.resolve().name, options, run)


def _within(options: Sequence[str], names: Sequence[str]) -> list[str]:
    """The options whose name, or whose section's name, is in `names`."""
    return [key for key in options if any(key == name or key.startswith(f"{name}.") for name in names)]


def _written(run: Compared, key: str) -> str:
    """The value of an option as JSON, or "" if the run does not have the option."""
    return json.dumps(run.options[key], default=str) if key in run.options else ""


def _differing(runs: Sequence[Compared], options: Sequence[str]) -> list[str]:
    """The options that differ. An option of a component counts only if it differs between runs with this component."""
    values = {key: {_written(run, key) for run in runs} for key in options}
    differ = [key for key in options if len(values[key]) > 1]
    named = {key.removesuffix("name") for key in differ if key.endswith(".name")}
    return [key for key in differ if key.endswith(".name") or not _is_in(key, named) or len(values[key] - {""}) > 1]


def _is_in(key: str, sections: set[str]) -> bool:
    return any(key.startswith(section) for section in sections)


def _settings(runs: Sequence[Compared], differing: Sequence[str]) -> dict[str, str]:
    """The values of the differing options as text; several values if the runs of the row differ."""
    values = {key: dict.fromkeys(_written(run, key).strip('"') for run in runs) for key in differing}
    return {key: " or ".join(value or "–" for value in found) for key, found in values.items() if any(found)}


def _state(run: Compared) -> str:
    status = str(run.run.summary.get("status") or "unfinished")
    return f"{status} after {len(run.run.trained)} rounds"


def _incomparable(row: Row, reference: Row) -> Iterator[str]:
    """Reasons why differences between two rows do not come from the method alone."""
    pairs = [(own, other) for own in row.runs for other in reference.runs if own.seed == other.seed]
    if not pairs:
        yield f"no seed in common with {reference.label}, so shards and test examples differ and cannot be paired"
    elif row.seeds != reference.seeds:
        yield f"other seeds than {reference.label}, so the means use other shards; differences use common seeds only"
    options = sorted(key for key in row.settings.keys() | reference.settings.keys() if key.startswith("data."))
    if other := [key for key in options if row.settings.get(key) != reference.settings.get(key)]:
        yield f"other data than {reference.label} ({', '.join(other)})"
    elif any(own.data != other.data for own, other in pairs if own.completed and other.completed):
        yield f"other shards or test examples than {reference.label}, although the options of the data are the same"
    if {run.run.measured_on for run in row.runs} != {run.run.measured_on for run in reference.runs}:
        yield f"measured on {row.runs[0].run.measured_on} examples, but {reference.label} on others"
