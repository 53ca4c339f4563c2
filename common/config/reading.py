"""Reading experiments: from a YAML file, or from a message. Finds all mistakes at once.

An experiment in a file may leave out what its method determines and every default. `parse` fills them in, so that a
resolved experiment contains every option.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from common.config import plugins
from common.config.component import Component, Reference, find, names, unknown
from common.config.experiment import Experiment
from common.config.metrics import metrics_by_key
from common.config.selection import metric_of
from common.config.task import SingleLabel, TaskName
from common.config.yaml_file import read_yaml
from common.errors import ConfigError
from common.modality import Modality


def read(path: Path, overrides: dict[str, Any] | None = None) -> Experiment:
    """Read the experiment of a YAML file. overrides: values by dotted option, e.g. {"train.lr": 0.1}.

    Raises ConfigError with every mistake of the file.
    """
    raw = read_yaml(path, "an experiment is a mapping of sections such as data, model, train")
    for dotted, value in (overrides or {}).items():
        override(raw, dotted.split("."), value, str(path))
    return parse(raw, str(path))


def override(raw: dict[str, Any], keys: list[str], value: Any, source: str) -> None:
    """Set the option at `keys` of a raw experiment in place, and create missing sections.

    Raises ConfigError when one of the keys is not a section.
    """
    for key in keys[:-1]:
        raw = raw.setdefault(key, {})
        if not isinstance(raw, dict):
            raise ConfigError(source, [f"{'.'.join(keys)}: {key} is not a section"])
    raw[keys[-1]] = value


def parse(raw: dict[str, Any], source: str) -> Experiment:
    """The resolved experiment of a mapping: every component is checked, and its defaults are filled in.

    Raises ConfigError with every mistake.
    """
    mistakes: list[str] = []
    resolved = _resolve(raw, mistakes)
    try:
        experiment = Experiment.model_validate_json(json.dumps(resolved))
    except ValidationError as error:
        mistakes = [*messages(error), *mistakes]
    except (TypeError, ValueError, RecursionError) as error:  # YAML knows dates, sets and circles, JSON does not
        mistakes = [f"no option accepts a value of this kind: {error}", *mistakes]
    if mistakes:
        raise ConfigError(source, mistakes)
    return experiment


def from_json(text: str) -> Experiment:
    """The experiment that `Experiment.to_json` wrote; the same object for the same text and the same allowed plugins.

    Checks only the components that a client uses, so neither the strategy nor the data set.

    Raises ConfigError when the text is not an experiment, e.g. because the sender runs another version of this project,
    and when a component belongs to a plugin that may not run here.
    """
    return _from_json(text, plugins.allowed())


def plugins_of(experiment: Experiment) -> dict[str, str]:
    """By name==version, the digest of each plugin of an experiment, also of those that only the server needs.

    Raises ConfigError when a component cannot be loaded.
    """
    with plugins.recorded() as used:
        parse(json.loads(experiment.to_json()), "experiment")
    return {str(plugin): plugin.digest for plugin in sorted(used)}


def for_clients(experiment: Experiment) -> dict[str, Any]:
    """The experiment in the body of a message to a client, with the plugins that the client needs."""
    text = experiment.to_json()
    return {"experiment": text, "plugins": [asdict(plugin) for plugin in plugins_at_sites(text)]}


@lru_cache(maxsize=8)
def plugins_at_sites(text: str) -> list[plugins.Plugin]:
    """The plugins that a client needs for an experiment, sorted; text: the result of `Experiment.to_json`.

    Raises ConfigError as `from_json` does.
    """
    with plugins.recorded() as used:
        _from_json.__wrapped__(text, plugins.allowed())
    return sorted(used)


@lru_cache(maxsize=8)
def _from_json(text: str, allowed: frozenset[plugins.Plugin] | None) -> Experiment:
    source, mistakes = "received experiment", list[str]()
    try:
        experiment = Experiment.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(source, messages(error)) from None
    parts = {"method": dict(experiment.method), "architecture": dict(experiment.model.architecture or {})}
    method = _component(parts, "method", "method", mistakes)
    _component(parts, "architecture", "model", mistakes, "model.")
    mistakes += _unused(method, dict(experiment.train))
    mistakes += _undefined(experiment.task.name, {"method": method})
    if method is not None and parts["architecture"].get("name") != getattr(method, "model", None):
        mistakes.append(f"model.architecture: the method needs {getattr(method, 'model', None)!r}")
    used = (
        ("model.encoders.", "encoder", experiment.model.encoders),
        ("completion.", "completer", experiment.completion),
    )
    for where, family, references in used:
        given = {modality: dict(reference) for modality, reference in references.items()}
        for modality in given:
            _component(given, modality, family, mistakes, where)
    if mistakes:
        raise ConfigError(source, mistakes)
    return experiment


def resolved(family: str, given: Sequence[Any], source: str) -> list[Reference]:
    """The references of components of one family, with every default. given: names, or names with options.

    Raises ConfigError with every mistake.
    """
    mistakes: list[str] = []
    found = []
    for one in given:
        name = str(one.get("name", family) if isinstance(one, dict) else one or family)
        section = {name: one if one is not None else {}}
        _component(section, name, family, mistakes)
        found.append((name, section[name]))
    counts = Counter(name for name, _ in found)
    mistakes += [f"{name}: is named {count} times; name it once" for name, count in counts.items() if count > 1]
    if mistakes:
        raise ConfigError(source, mistakes)
    return [reference for _, reference in found]


def _resolve(raw: dict[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """The raw experiment with the defaults of each component. The method determines model and strategy where the
    experiment names none."""
    resolved = dict(raw)
    method = _component(resolved, "method", "method", mistakes)
    if method is not None and resolved.get("strategy") is None:
        resolved["strategy"] = {"name": getattr(method, "strategy", "fedavg")}
    _component(resolved, "strategy", "strategy", mistakes)
    mistakes += _unused(method, raw.get("train"))
    metrics = _metrics(resolved, mistakes)
    source = None
    if isinstance(data := raw.get("data"), dict):
        resolved["data"] = dict(data)
        source = _component(resolved["data"], "set", "data set", mistakes, "data.")
    if isinstance(model := raw.get("model"), dict):
        resolved["model"] = dict(model)
        if method is not None and model.get("architecture") is None:
            resolved["model"]["architecture"] = {"name": getattr(method, "model", "late-fusion")}
        chosen = _component(resolved["model"], "architecture", "model", mistakes, "model.")
        wanted = getattr(method, "model", None)
        if chosen is not None and wanted and resolved["model"]["architecture"]["name"] != wanted:
            mistakes.append(f"model.architecture: the method needs {wanted!r}")
        if isinstance(encoders := model.get("encoders"), dict):
            resolved["model"]["encoders"] = dict(encoders)
            for modality in encoders:
                where = "model.encoders."
                _component(resolved["model"]["encoders"], modality, "encoder", mistakes, where)
            mistakes += _unheld(list(encoders), source, data)
            _complete(resolved, list(encoders), mistakes)
    task = raw.get("task", SingleLabel().name)
    named = task.get("name") if isinstance(task, dict) else task
    name = named if isinstance(named, str) else ""
    mistakes += _undefined(name, {"method": method, "data.set": source, **metrics})
    mistakes += _unmeasured(name, resolved, all(metrics.values()))
    return resolved


def _unmeasured(task: str, resolved: dict[str, Any], all_known: bool) -> list[str]:
    """Mistakes: the best model is chosen by a metric that the run does not have. all_known: whether the experiment's
    further metrics are without mistakes."""
    federation = resolved.get("federation")
    keep = federation.get("keep") if isinstance(federation, dict) else None
    best = keep.get("best") if isinstance(keep, dict) else None
    key = metric_of(best) if isinstance(best, str) else None
    if key is None or not all_known or task not in get_args(TaskName):
        return []
    known = metrics_by_key(task, resolved.get("metrics") or [])
    return [] if key in known else [f"federation.keep.best: {unknown('metric', key, sorted(known))}"]


def _metrics(resolved: dict[str, Any], mistakes: list[str]) -> dict[str, Component | None]:
    """Resolve the further metrics in place. Returns them by place."""
    if not isinstance(given := resolved.get("metrics"), list):
        return {}
    places = {f"metrics.{number}": reference for number, reference in enumerate(given)}
    found = {place: _component(places, place, "metric", mistakes) for place in list(places)}
    resolved["metrics"] = list(places.values())
    return found


def _undefined(task: str, components: dict[str, Component | None]) -> list[str]:
    """Mistakes: components that are not defined for the task. components: by their place in the experiment."""
    known = {where: getattr(component, "tasks", {task}) for where, component in components.items() if component}
    return [
        f"{where}: it is not defined for task {task!r}, only for {', '.join(sorted(tasks))}"
        for where, tasks in known.items()
        if task in get_args(TaskName) and task not in tasks
    ]


def _complete(resolved: dict[str, Any], encoders: list[Modality], mistakes: list[str]) -> None:
    """Resolve the completers in place."""
    if not isinstance(completion := resolved.get("completion"), dict):
        return
    resolved["completion"] = dict(completion)
    for modality in completion:
        completer = _component(resolved["completion"], modality, "completer", mistakes, "completion.")
        source = getattr(completer, "source", None)
        mistakes += [
            f"completion.{where}: {unknown('modality', name, encoders)}"
            for where, name in ((modality, modality), (f"{modality}.source", source))
            if name is not None and name not in encoders
        ]
        if source == modality:
            mistakes.append(f"completion.{modality}.source: must be another modality than {modality}")


def _component(
    section: dict[str, Any], key: str, family: str, mistakes: list[str], prefix: str = ""
) -> Component | None:
    """Fill in the defaults of one component in place, and add its mistakes to `mistakes`."""
    reference = section.get(key)
    if reference is None:
        return None
    if isinstance(reference, str):
        reference = {"name": reference}
    where = f"{prefix}{key}"
    if not isinstance(reference, dict) or "name" not in reference:
        mistakes.append(f"{where}: needs a name; known: {', '.join(names(family))}")
        section[key] = {}
        return None
    section[key] = reference
    try:
        kind = find(family, str(reference["name"]))
        options = {name: value for name, value in reference.items() if name != "name"}
        component = kind.model_validate(options)
    except ConfigError as error:
        mistakes += [f"{where}: {mistake}" for mistake in error.mistakes]
        return None
    except ValidationError as error:
        mistakes += [f"{where}.{message}" for message in messages(error, kind)]
        return None
    section[key] = {"name": reference["name"], **component.model_dump(mode="json")}
    return component


def messages(error: ValidationError, kind: Any = Experiment) -> list[str]:
    """Pydantic's findings about a `kind` of options as our messages: the option, the mistake, the given value."""
    found = []
    for finding in error.errors(include_url=False):
        where = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            text = unknown("option", finding["loc"][-1], _options_at(finding["loc"], kind))
        elif finding["type"] == "union_tag_invalid":
            tags = [tag.strip(" '") for tag in finding["ctx"]["expected_tags"].split(",")]
            text = unknown("name", finding["ctx"]["tag"], tags)
        elif finding["type"] == "union_tag_not_found":
            text = "needs a name"
        elif finding["type"] == "missing":
            text = "is required"
        elif finding["type"] == "value_error":
            text = str(finding["ctx"]["error"]) if "ctx" in finding else finding["msg"]
        else:
            text = f"{finding['msg'][0].lower()}{finding['msg'][1:]}, not {finding['input']!r}"
        found.append(f"{where}: {text}" if where else text)
    return found


def _options_at(location: tuple[int | str, ...], kind: Any) -> list[str]:
    """The options of the section that contains `location`, within a `kind` of options."""
    for part in location[:-1]:
        kind = _below(kind, part)
    sections = [
        section for section in (kind, *get_args(kind)) if hasattr(section, "model_fields")
    ]  # it may be optional
    return list(sections[0].model_fields) if sections else []


def _below(kind: Any, part: int | str) -> Any:
    """The type at one step of a location: that of a field, of a value in a list or mapping, or the member of a union
    with this name."""
    if hasattr(kind, "model_fields"):
        field = kind.model_fields.get(part)
        return field.annotation if field else None
    members = get_args(kind)
    if get_origin(kind) in (list, dict):
        return members[-1]
    named = [m for m in members if "name" in getattr(m, "model_fields", ()) and
             get_args(m.model_fields["name"].annotation) == (part,)]  # fmt: skip
    deeper = (_below(member, part) for member in members if get_args(member))
    return named[0] if named else next((found for found in deeper if found is not None), None)


def _unused(method: Component | None, train: Any) -> list[str]:
    """Mistakes: options of the round's criterion that the method would ignore."""
    if method is None or getattr(method, "uses_criterion", False) or not isinstance(train, dict):
        return []
    return [
        f"train.{option}: the method computes its loss without it; remove the option or choose another method"
        for option in ("label_smoothing", "class_weights")
        if train.get(option)
    ]


def _unheld(encoders: list[Modality], source: Component | None, data: Any) -> list[str]:
    """Mistakes: modalities that have an encoder but are not in the data set, and modalities without an encoder."""
    offered = list(getattr(source, "modalities", encoders))
    mistakes = [
        f"model.encoders.{modality}: {unknown('modality of the data set', modality, offered)}"
        for modality in encoders
        if modality not in offered
    ]
    missing = data.get("missing") if isinstance(data, dict) else None
    for option in ("rates", "unimodal_clients"):
        named = missing.get(option) if isinstance(missing, dict) else None
        if isinstance(named, dict):
            mistakes += [
                f"data.missing.{option}.{modality}: {unknown('modality', modality, encoders)}"
                for modality in named
                if modality not in encoders
            ]
    return mistakes
