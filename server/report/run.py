"""The content of a run folder for the page of a run. Missing files and incomplete lines are not errors."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from common.modality import subset_name
from common.words.figures import MAIN
from server.record.run_folder import METRICS, SUMMARY, is_written
from server.report.drawing import FULL, MIXED, SINGLES


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty object."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """The value if it is a finite number, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def amount(value: Any) -> float:
    """The value if it is a finite number, else 0."""
    return number(value) or 0.0


def round_of(line: Mapping[str, Any]) -> int:
    """The round number of a line."""
    return int(amount(line.get("round")))


@dataclass(frozen=True)
class Run:
    """The content of a run folder. rounds: the lines of metrics.jsonl, by number. live: whether the run continues."""

    summary: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    config: str
    live: bool = False

    @cached_property
    def about(self) -> dict[str, Any]:
        """The settings of the run, from the summary, or from the experiment while there is no summary."""
        settings = mapping(yaml_value(self.config))
        data = mapping(settings.get("data"))
        planned = {
            "name": settings.get("name"),
            "dataset": mapping(data.get("set")).get("name"),
            "method": mapping(settings.get("method")).get("name"),
            "strategy": mapping(settings.get("strategy")).get("name"),
            "modalities": list(mapping(mapping(settings.get("model")).get("encoders"))),
            "seed": settings.get("seed"),
            "clients": data.get("clients"),
            "planned": mapping(settings.get("federation")).get("rounds"),
            "task": settings.get("task"),
        }
        return planned | dict(self.summary)

    @cached_property
    def task(self) -> str:
        """The name of the task."""
        task = self.about["task"]
        named = str(mapping(task).get("name") if isinstance(task, dict) else task)
        return named if named in MAIN else "single-label"

    @cached_property
    def metric(self) -> str:
        """The key of the metric that stands for a model."""
        return MAIN[self.task]

    def told(self, what: str) -> Any:
        """An entry of the summary, or else of the latest line that has it."""
        lines = (line[what] for line in reversed(self.rounds) if what in line)
        return self.summary[what] if what in self.summary else next(lines, None)

    @cached_property
    def measured_on(self) -> str:
        """ "test" if the server has a test shard, else "validation"."""
        return "test" if any(mapping(line.get("test")) for line in self.rounds) else "validation"

    @cached_property
    def points(self) -> list[tuple[int, dict[str, Any]]]:
        """The figures of the global models by subset, each with the round that made the model."""
        # Clients validate the model that they receive, and the round before made that model.
        late = 0 if self.measured_on == "test" else 1
        found = [(round_of(line) - late, mapping(line.get(self.measured_on))) for line in self.rounds]
        return [(made, figures) for made, figures in found if figures]

    @cached_property
    def final(self) -> dict[str, Any]:
        """The figures of the last model that was measured."""
        return self.points[-1][1] if self.points else {}

    @cached_property
    def subsets(self) -> list[str]:
        """Every subset of modalities with figures, from single modalities to the largest subset."""
        names = {name for _, figures in self.points for name in figures}
        names |= set(mapping(self.summary.get("scores")))
        return sorted(names, key=lambda name: (name.count("+"), name))

    @cached_property
    def modalities(self) -> list[str]:
        """The modalities of the experiment, or those with figures if the experiment is unknown."""
        named = self.about["modalities"] or {part for name in self.subsets for part in name.split("+")}
        return sorted(str(name) for name in named)

    @cached_property
    def full(self) -> str:
        """The subset that has every modality."""
        return subset_name(self.modalities)

    @cached_property
    def singles(self) -> list[str]:
        """The single modalities with figures."""
        return [name for name in self.subsets if name in self.modalities]

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour of each subset, the same in every plot."""
        singles = [name for name in self.modalities if name != self.full]
        mixed = [name for name in self.subsets if name not in singles and name != self.full]
        own = {name: SINGLES[i % len(SINGLES)] for i, name in enumerate(singles)}
        own |= {name: MIXED[i % len(MIXED)] for i, name in enumerate(mixed)}
        return {**own, self.full: FULL}

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes, or numbers if the names are unknown."""
        named = [str(name) for name in self.told("classes") or []]
        seen = max((len(self.recalls(name)) for name in self.subsets), default=0)
        return named + [str(i) for i in range(len(named), seen)]

    @cached_property
    def trained(self) -> list[Mapping[str, Any]]:
        """The rounds after the evaluation of the initial model."""
        return [line for line in self.rounds if round_of(line) > 0]

    @cached_property
    def clients(self) -> list[str]:
        """The sites that replied in at least one round."""
        return sorted({name for line in self.trained for name in mapping(line.get("clients"))})

    @cached_property
    def weighed(self) -> list[tuple[int, dict[str, Any]]]:
        """The strategy's weights and similarities of the sites, with the number of the round."""
        found = [(round_of(line), mapping(line.get("aggregation"))) for line in self.trained]
        return [(made, said) for made, said in found if {"weights", "similarity"} & said.keys()]

    def recalls(self, subset: str) -> list[float | None]:
        """The final sensitivity by class; None for a class without examples."""
        return self.by_class(subset, "sensitivity")

    def by_class(self, subset: str, metric: str) -> list[float | None]:
        """The final values of a metric by class; empty if they are unknown."""
        values = mapping(mapping(self.final.get(subset)).get("by_class")).get(metric)
        return [number(value) for value in values] if isinstance(values, list) else []

    def series(self, subset: str, figure: str) -> tuple[list[int], list[float]]:
        """The rounds that have a figure of a subset, and its values."""
        known = [(made, number(mapping(figures.get(subset)).get(figure))) for made, figures in self.points]
        return [made for made, value in known if value is not None], [v for _, v in known if v is not None]


class Lines:
    """The JSON objects of metrics.jsonl. Each call reads only the new lines of the growing file.

    An incomplete last line is read later. A line that is not a JSON object is skipped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[dict[str, Any]] = []
        self._inode, self._end = -1, 0

    def read(self) -> list[dict[str, Any]]:
        """The objects so far, by their round.

        Raises OSError when the file exists and cannot be read.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            stat = os.fstat(file.fileno())
            if stat.st_ino != self._inode or stat.st_size < self._end:  # a resumed run rewrites the file
                self._found, self._inode, self._end = [], stat.st_ino, 0
            file.seek(self._end)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._end += len(whole + newline)
        added = (mapping(parsed(line)) for line in whole.decode("utf-8", errors="replace").split("\n"))
        self._found += [line for line in added if line]
        return sorted(self._found, key=lambda line: amount(line.get("round")))


def read_run(run_dir: Path, lines: Lines | None = None) -> Run:
    """The content of a run folder, without missing files and incomplete lines. lines: the reader of an earlier call.

    Raises OSError when a file exists and cannot be read.
    """
    rounds = (lines or Lines(run_dir / METRICS)).read()
    summary = mapping(parsed(text_of(run_dir / SUMMARY)))
    live = not summary and is_written(run_dir)
    return Run(summary, rounds, text_of(run_dir / "experiment.yaml"), live)


def text_of(path: Path) -> str:
    """The text of a file, or "" if it does not exist."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def parsed(text: str) -> Any:
    """The JSON value, or None for text that is not JSON, such as the last line of a run that was killed."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def yaml_value(text: str) -> Any:
    """The YAML value, or None for text that is not YAML."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
