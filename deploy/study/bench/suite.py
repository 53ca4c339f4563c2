"""A benchmark from a YAML file: methods x settings x seeds over one experiment."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from common.config.component import Options, Reference, find, names, unknown
from common.config.experiment import Experiment
from common.config.reading import messages, override, parse
from common.data.shard import Shard
from common.errors import ConfigError
from common.evaluation.figures import metrics_of
from common.modality import Modality
from common.words.figures import MAIN
from deploy.study.bench.attacks import Hostile
from deploy.study.bench.own_shards import making_options, open_own_shards
from deploy.study.bench.statistics import Aim

Arrangement = Literal["federated", "centralised", "local", "unimodal"]
"""federated: all clients together. centralised: one site with the data of all clients. local: every client alone.
unimodal: the clients with one modality, on that modality alone."""


class Setting(Options):
    """One table: changes of the experiment."""

    title: str
    """The title of the table."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Changed options by dotted name."""
    weak: Modality | None = None
    """The modality whose probe is in the first table. None: no probes, because the encoders are frozen; the table has
    the accuracies of single modalities instead."""
    methods: list[str] | None = None
    """The rows of the table. None: all rows with `everywhere`."""
    tuned_in: str | None = None
    """The setting whose tuned values are used. None: this one."""
    hostile: Hostile | None = None
    """The hostile sites. None: every site is honest."""


class Row(Options):
    """One row of the tables: a method as configured by `set`, or another arrangement."""

    title: str
    """The title of the row."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Changed options by dotted name."""
    arrangement: Arrangement = "federated"
    """The clients that train together, and their data."""
    modality: Modality | None = None
    """The modality of a unimodal arrangement."""
    tuned_as: str | None = None
    """For ablations, the row whose tuned value is used. None: this one."""
    everywhere: bool = True
    """Whether the row is in settings that do not name their methods."""

    @model_validator(mode="after")
    def _modality_where_needed(self) -> Self:
        if (self.arrangement == "unimodal") != (self.modality is not None):
            raise ValueError("arrangement 'unimodal' needs a modality, and no other arrangement may have one")
        return self


class Tuning(Options):
    """Tuning with the same budget for every row: each value of one option with each seed. The best value on validation
    is used."""

    option: str
    """The dotted name of the option."""
    values: list[float] = Field(min_length=1)
    """The candidate values."""
    seeds: list[int] = Field(min_length=1)
    """The seeds of the tuning runs."""


class Suite(Options):
    """A benchmark."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """The name of the benchmark and of its work folder."""
    experiment: dict[str, Any]
    """The options that all runs share."""
    data: str = "data"
    """The folder with the folders of the data sets."""
    shards: str | None = None
    """A folder with your own shards: one per site, and the shard `test`. None: shards are made from the experiment's
    data set. Relative to the current folder."""
    metric: str | None = None
    """The metric of the first column, which also chooses tuned values and rounds on validation. None: the main metric
    of the task, accuracy, auroc or r2."""
    settings: dict[str, Setting] = Field(min_length=1)
    """The tables, by name."""
    methods: dict[str, Row] = Field(min_length=1)
    """The rows, by name."""
    references: list[str] = Field(min_length=1)
    """The rows to which differences are computed, with the main reference first."""
    seeds: list[int] = Field(min_length=2)
    """The seeds of the tables."""
    tuning: Tuning
    """The tuning of the rows."""
    probe: dict[Modality, Reference] | None = None
    """The completers that make the probe set, by modality. None: those of the row with the most completers."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        known = self.methods.keys()
        named = [*self.references, *(row.tuned_as for row in self.methods.values() if row.tuned_as is not None)]
        named += [name for setting in self.settings.values() for name in setting.methods or []]
        if missing := sorted({name for name in named if name not in known}):
            raise ValueError(f"unknown methods {', '.join(missing)}; known: {', '.join(known)}")
        tuned = [setting.tuned_in for setting in self.settings.values() if setting.tuned_in is not None]
        if absent := sorted(name for name in tuned if name not in self.settings):
            raise ValueError(f"tuned_in: unknown settings {', '.join(absent)}")
        if both := sorted(set(self.seeds) & set(self.tuning.seeds)):
            raise ValueError(f"seeds {both} are in both tuning.seeds and seeds; use different seeds")
        return self

    @property
    def task(self) -> str:
        """The name of the task of all runs. The experiments' own checks report other tasks."""
        given = self.experiment.get("task") or "single-label"
        name = given.get("name", "single-label") if isinstance(given, dict) else given
        return name if name in MAIN else "single-label"

    @cached_property
    def aim(self) -> Aim:
        """The metric of the first column.

        Raises ConfigError when the experiments do not have it.
        """
        first = next(iter(self.settings))
        experiment = self.experiment_of(first, self.reference, self.seeds[0], self.tuning.values[0])
        known = {named.key: named.metric for named in metrics_of(experiment)}
        name = self.metric or MAIN[self.task]
        if name not in known:
            raise ConfigError(self.name, [f"metric: {unknown('metric', name, sorted(known))}"])
        return Aim(name, known[name].higher_is_better)

    @property
    def reference(self) -> str:
        """The main reference."""
        return self.references[0]

    def rows_of(self, setting: str) -> list[str]:
        """The methods of a setting, in the order of the file."""
        wanted = self.settings[setting].methods
        return [name for name, row in self.methods.items() if (row.everywhere if wanted is None else name in wanted)]

    def tuning_place(self, setting: str, method: str) -> tuple[str, str]:
        """The setting and the method whose tuned value this cell uses."""
        return self.settings[setting].tuned_in or setting, self.methods[method].tuned_as or method

    def experiment_of(self, setting: str, method: str, seed: int, value: float) -> Experiment:
        """The resolved experiment of one run.

        Raises ConfigError.
        """
        raw = copy.deepcopy(self.experiment)
        changes = {**self.settings[setting].set, **self.methods[method].set}
        where = f"{self.name}: {setting}, {method}"
        for dotted, given in {**changes, self.tuning.option: value, "seed": seed}.items():
            override(raw, dotted.split("."), copy.deepcopy(given), where)
        raw["name"] = f"{self.name}-{setting}-{method}"
        self._place(raw.get("data", {}).get("set"))
        modality = self.methods[method].modality
        if modality is not None:
            raw["model"]["encoders"] = {modality: raw["model"]["encoders"][modality]}
        experiment = parse(raw, where)
        if experiment.federation.patience is not None:
            raise ConfigError(where, ["federation.patience: all runs have the same rounds; remove the option"])
        return experiment

    def _place(self, source: Any) -> None:
        """Put the folders of a data set below `data`. The experiment's own checks report invalid data sets."""
        if not isinstance(source, dict) or source.get("name") not in names("data set"):
            return
        for option in getattr(find("data set", source["name"]), "folders", ()):
            if option in source:
                source[option] = str(Path(self.data) / source[option])


@dataclass(frozen=True)
class Job:
    """One run. data: the experiment of the reference row, whose shards all rows use. probed: whether the encoders are
    probed at the end. own: the folder of the user's own shards; None: shards are made from a data set. hostile: the
    hostile sites, if any. probe: the completers that make the probe set; None: those of the experiments."""

    setting: str
    method: str
    arrangement: Arrangement
    experiment: Experiment
    data: Experiment
    value: float
    seed: int
    probed: bool
    own: Path | None = None
    hostile: Hostile | None = None
    probe: dict[Modality, Reference] | None = None


def read_suite(path: Path, changes: dict[str, Any], data: Path | None = None, shards: Path | None = None) -> Suite:
    """The benchmark of a file. changes: options of its experiment by dotted name. data: another folder of data sets.
    shards: another folder of own shards.

    Raises ConfigError with every mistake.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        suite = Suite.model_validate_json(json.dumps(raw))
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise ConfigError(str(path), [f"cannot be read: {' '.join(str(error).split())}"]) from None
    except ValidationError as error:
        raise ConfigError(str(path), messages(error, Suite)) from None
    for dotted, value in changes.items():
        override(suite.experiment, dotted.split("."), value, str(path))
    if suite.task != "single-label" and (probed := [n for n, setting in suite.settings.items() if setting.weak]):
        raise ConfigError(str(path), [f"settings.{name}.weak: a probe needs the task single-label" for name in probed])
    given = {"data": data, "shards": shards}
    suite = suite.model_copy(update={name: str(folder) for name, folder in given.items() if folder is not None})
    return suite if suite.shards is None else _on_own_shards(suite, Path(suite.shards), str(path))


def _on_own_shards(suite: Suite, folder: Path, source: str) -> Suite:
    """The suite with the number of sites of the user's own shards.

    Raises ConfigError with every mistake of the suite and of the shards.
    """
    places = {f"settings.{name}.set": setting.set for name, setting in suite.settings.items()}
    places |= {f"methods.{name}.set": row.set for name, row in suite.methods.items()}
    places |= {"experiment": suite.experiment, "tuning": {suite.tuning.option: suite.tuning.values}}
    mistakes = [
        f"{place}: {option} has no effect on your own shards ({folder}), because they exist already: remove the option"
        for place, changes in places.items()
        for option in making_options(changes)
    ]
    shards: list[Shard] = []
    try:
        shards = open_own_shards(folder)
    except ConfigError as error:
        mistakes += error.mistakes
    data = suite.experiment.get("data") or {}
    if not isinstance(data, dict):
        mistakes.append("experiment: data is not a section")
    elif shards and data.get("clients", len(shards) - 1) != len(shards) - 1:
        said = f"{folder} has {len(shards) - 1} sites: remove the option"
        mistakes.append(f"experiment: data.clients is {data['clients']}, but {said}")
    if mistakes:
        raise ConfigError(source, mistakes)
    experiment = {**suite.experiment, "data": {**data, "clients": len(shards) - 1}}
    made = suite.model_copy(update={"experiment": experiment})
    _check_runs(made, shards[:-1], shards[-1], source)
    return made


def _check_runs(suite: Suite, sites: list[Shard], test: Shard, source: str) -> None:
    """Raises ConfigError with every mistake in the experiments of the runs, before the first of them."""
    mistakes, held = dict[str, None](), {m for site in sites for m in site.info.modalities}
    for setting in suite.settings:
        for method in suite.rows_of(setting):
            try:
                experiment = suite.experiment_of(setting, method, suite.seeds[0], suite.tuning.values[0])
            except ConfigError as error:
                mistakes |= dict.fromkeys(f"{setting}, {method}: {mistake}" for mistake in error.mistakes)
            else:
                mistakes |= dict.fromkeys(_unknown_modalities(experiment.modalities, held, test))
                if experiment.task.name != test.info.task:
                    mistakes[f"task: the experiment is {experiment.task.name}, the shards are {test.info.task}"] = None
    if mistakes:
        raise ConfigError(source, list(mistakes))


def _unknown_modalities(modalities: list[Modality], held: set[Modality], test: Shard) -> Iterator[str]:
    """Mistakes in the modalities of an experiment. held: the modalities of the sites."""
    absent = [m for m in modalities if m not in held]
    yield from (f"model.encoders.{m}: no site has this modality" for m in absent)
    if not absent and not any(all(record.has(m) for m in modalities) for record in test.records):
        yield f"model.encoders: no example of the test shard has all of {', '.join(modalities)}"


def jobs(
    suite: Suite, cells: list[tuple[str, str]], seeds: list[int], values: dict[tuple[str, str], list[float]]
) -> Iterator[Job]:
    """Yield one job for every (setting, method) of `cells`, every seed and every value of the cell."""
    for setting, method in cells:
        for seed in seeds:
            for value in values[setting, method]:
                chosen = suite.experiment_of(setting, method, seed, value)
                data = suite.experiment_of(setting, suite.reference, seed, value)
                arrangement = suite.methods[method].arrangement
                probed = suite.settings[setting].weak is not None
                own = Path(suite.shards) if suite.shards else None
                hostile = suite.settings[setting].hostile
                yield Job(setting, method, arrangement, chosen, data, value, seed, probed, own, hostile, suite.probe)
