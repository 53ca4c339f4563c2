"""An experiment: one YAML file that contains every option. All its mistakes are reported at once, before a run loads
anything."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from common.config import plugins
from common.config.component import Component, Options, Reference, build, find, names, unknown
from common.config.yaml_file import read_yaml
from common.errors import ConfigError
from common.modality import Modality

Share = Annotated[float, Field(ge=0, le=1)]
ModalityName = Annotated[Modality, Field(pattern=r"^[a-z][a-z0-9_]*$")]
RESERVED = {"id", "label", "shared"}
"""Names that no modality can have: keys of metadata.jsonl, and the block of the parameters of no modality."""


class Iid(Options):
    """Examples are divided at random."""

    name: Literal["iid"]


class Dirichlet(Options):
    """The class shares of each client follow a Dirichlet distribution. A smaller alpha gives more unequal clients."""

    name: Literal["dirichlet"]
    alpha: float = Field(0.5, gt=0)
    """Concentration of the distribution."""
    min_examples: int = Field(10, ge=1)
    """The smallest number of examples of a client. The shares are drawn again until every client has at least as
    many."""


class LabelShards(Options):
    """Examples are sorted by label and cut into pieces. Each client gets a few pieces, and so few classes."""

    name: Literal["label-shards"]
    shards_per_client: int = Field(2, ge=1)
    """Number of pieces per client."""


class Natural(Options):
    """One client per natural owner, such as a speaker, a brand or a subject. With fewer clients than owners, a client
    gets the examples of several owners."""

    name: Literal["natural"]


Partition = Annotated[Iid | Dirichlet | LabelShards | Natural, Field(discriminator="name")]


class Missing(Options):
    """The modalities that are removed from examples when shards are made."""

    unimodal_clients: Share | dict[Modality, Share] = 0.0
    """Share of the clients that hold only one modality: one number for all modalities together, or a share for each
    modality."""
    incomplete: Share = 0.0
    """Share of the examples that lose exactly one modality (beta of FedMVP)."""
    depends_on: Literal["class", "client"] | None = None
    """Makes the share of incomplete examples differ between classes or between clients. Its average remains
    `incomplete`."""
    rates: dict[Modality, Share] = Field(default_factory=dict)
    """By modality, the probability that an example loses it, independently of the other modalities. Every example keeps
    at least one modality."""

    @field_validator("unimodal_clients")
    @classmethod
    def _at_most_all_clients(cls, value: float | dict[Modality, float]) -> float | dict[Modality, float]:
        if isinstance(value, dict) and sum(value.values()) > 1 + 1e-9:
            raise ValueError("the shares add up to more than 1")
        return value


class Data(Options):
    """The data set, its division among the clients, and its missing modalities."""

    set: Reference | None = None
    """The data set that shards are made from. None: each site has its own shard, and only the options `classes`,
    `clients`, `validation`, `max_unreadable` and `complete_only` are used."""
    classes: list[str] | None = Field(None, min_length=1)
    """Names of the classes in the order of the shards. The server refuses a site with other classes. None: the classes
    of the server's test shard or, without a test shard, the classes of most sites."""
    clients: int = Field(ge=1, le=1_000_000)
    """Number of clients."""
    partition: Partition = Iid(name="iid")
    """How the examples are divided among the clients."""
    missing: Missing = Missing()
    """Which modalities are missing."""
    limit: int | None = Field(None, ge=1)
    """Largest number of training examples, chosen by the seed. None: all."""
    test_limit: int | None = Field(None, ge=1)
    """Largest number of test examples, chosen by the seed. None: all."""
    validation: float = Field(0.1, ge=0, le=0.5)
    """Share of each client's examples that is used for validation and not for training."""
    max_unreadable: float = Field(0.2, ge=0, le=1)
    """Largest share of a modality's values that may be unreadable. A site or a server's shard with more is refused."""
    complete_only: bool = False
    """Whether clients train only on examples that have every modality."""


class Model(Options):
    """The model that is trained."""

    encoders: dict[ModalityName, Reference] = Field(min_length=1)
    """The encoder of each modality. The keys are the modalities of the experiment."""
    architecture: Reference | None = None
    """The model that joins the encoders. None: the model that the method needs."""

    @field_validator("encoders")
    @classmethod
    def _no_reserved_names(cls, encoders: dict[Modality, Reference]) -> dict[Modality, Reference]:
        if taken := RESERVED & encoders.keys():
            raise ValueError(f"{', '.join(sorted(taken))}: a modality cannot have this name")
        return encoders


class Train(Options):
    """Local training. Each round starts with a new optimizer."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """The optimizer of each client."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` lowers `lr` over the epochs of all rounds, from its full value to nearly 0."""
    epochs: int = Field(1, ge=1, le=100_000)
    """Passes over a client's examples per round."""
    batch_size: int = Field(32, ge=2, le=1_000_000)
    """Examples per step."""
    lr: float = Field(gt=0)
    """Learning rate."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of `sgd`; `adamw` does not use it."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of the optimizer."""


class FedAvgM(Options):
    """Momentum on the server. With lr 1 and momentum 0 it is plain averaging."""

    name: Literal["fedavgm"]
    lr: float = Field(1.0, gt=0)
    """Learning rate of the server."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of the server's steps."""


class _Adaptive(Options):
    """The options that FedAdam and FedYogi share."""

    lr: float = Field(0.01, gt=0)
    """Learning rate of the server (eta)."""
    beta_1: float = Field(0.9, ge=0, lt=1)
    """Decay of the first moment."""
    beta_2: float = Field(0.99, ge=0, lt=1)
    """Decay of the second moment."""
    tau: float = Field(1e-3, gt=0)
    """Degree of adaptivity. A smaller value is more adaptive."""


class FedAdam(_Adaptive):
    """Adam on the server."""

    name: Literal["fedadam"]


class FedYogi(_Adaptive):
    """Yogi on the server."""

    name: Literal["fedyogi"]


ServerOptimizer = FedAvgM | FedAdam | FedYogi


class Federation(Options):
    """Rounds, and the sites that take part."""

    rounds: int = Field(ge=1, le=1_000_000)
    """Number of rounds."""
    sites: list[str] | None = Field(None, min_length=1)
    """Names of the sites that take part. The server refuses other sites, and names the missing ones while it waits.
    None: the first `data.clients` sites, with any names."""
    sample: int | None = Field(None, ge=1)
    """Number of clients that train per round, drawn from all clients that have introduced themselves. None: all."""
    min_replies: int | None = Field(None, ge=1)
    """Number of usable replies that a round needs. None: two thirds of the sampled clients, rounded up, so that no
    single one of three or more sites can end the run."""
    min_holders: dict[Modality, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """By modality, the number of usable replies that must come from clients that hold it."""
    retries: int = Field(2, ge=0, le=1000)
    """How often the server asks again within a round, before too few replies end the run. It asks the clients that have
    not replied, and further clients."""
    wait_seconds: float = Field(120, gt=0, le=10_000_000)
    """Seconds to wait for clients to connect, at the start and when a round has too few."""
    round_seconds: float = Field(1800, gt=0, le=10_000_000)
    """Seconds that the sampled clients have to reply."""
    max_update_norm: float | None = Field(None, gt=0)
    """Largest L2 norm of an update, which is the trained parameters minus the received ones. The server refuses a
    larger update. None: no bound."""
    max_update_ratio: float | None = Field(10, gt=1)
    """The server also refuses an update whose norm is more than this many times larger than both the norm of the
    received parameters and the median norm of the updates in the previous round. None: no bound."""
    max_weight: float | None = Field(10, ge=1)
    """Largest weight of a site: this many times the median number of examples of the connected sites. A larger number
    that a site reports does not count. None: no bound."""
    collapse: float | None = Field(0.5, gt=0, lt=1)
    """The server drops the mean of a round, and continues with the previous model, when the accuracy with all
    modalities is clearly below this share of the best accuracy so far. The accuracy is measured on the test shard.
    Without a test shard, most sites must measure such an accuracy on their validation examples. None: the server keeps
    every mean."""
    optimizer: Annotated[ServerOptimizer, Field(discriminator="name")] | None = None
    """Optimizer of the server, applied to the mean of the strategy. None: the mean is the new model."""

    def needed(self, sampled: int) -> int:
        """Number of usable replies that a round with `sampled` clients needs."""
        return self.min_replies or -(-2 * sampled // 3)


class Wire(Options):
    """The form of parameters in messages."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the parameters in messages. bfloat16 halves the bytes and rounds every value to 8 bits of precision."""
    delta: bool = False
    """Whether clients send the difference to the received parameters. The 8 bits of bfloat16 are far more precise for
    differences."""


class Experiment(Options):
    """A complete experiment."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run's folder and of its report."""
    seed: int = Field(1, ge=0)
    """Seed of all randomness except the noise of differential privacy."""
    data: Data
    """The data that clients train on."""
    model: Model
    """The model that clients train."""
    completion: dict[ModalityName, Reference] = Field(default_factory=dict)
    """By modality, the completer that generated missing values. Values of other modalities stay missing."""
    method: Reference
    """The method: the local objective of every client."""
    strategy: Reference | None = None
    """The strategy: the aggregation on the server. None: the strategy that the method names."""
    train: Train
    """Local training of each client."""
    federation: Federation
    """Rounds, and the sites that take part."""
    wire: Wire = Wire()
    """The form of parameters in messages."""

    @property
    def modalities(self) -> list[Modality]:
        """The modalities of the experiment, in alphabetical order."""
        return sorted(self.model.encoders)

    def component(self, family: str) -> Any:
        """The experiment's data set, model, method or strategy, built from its options."""
        section = {
            "data set": self.data.set,
            "model": self.model.architecture,
            "method": self.method,
            "strategy": self.strategy,
        }[family]
        if section is None:
            raise ValueError(f"the experiment is not resolved: no {family}")
        return build(family, section)

    def to_json(self) -> str:
        """The whole experiment in one line, as it travels to server and clients."""
        return self.model_dump_json()

    def for_clients(self) -> dict[str, Any]:
        """The experiment in the form of a message to a client, with the plugins that the client needs."""
        text = self.to_json()
        return {"experiment": text, "plugins": [asdict(plugin) for plugin in plugins_at_sites(text)]}

    def to_yaml(self) -> str:
        """The whole experiment, with all defaults."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if mistakes := list(self._impossible()):
            raise ValueError("; ".join(mistakes))
        return self

    def _impossible(self) -> Iterator[str]:
        settings, clients = self.federation, self.data.clients
        if settings.sample is not None and settings.sample > clients:
            yield f"federation.sample is {settings.sample}, but data.clients is {clients}"
        if settings.sites is not None and len(set(settings.sites)) != clients:
            yield f"federation.sites names {len(set(settings.sites))} sites, but data.clients is {clients}"
        trained = settings.sample or clients
        if (settings.min_replies or 0) > trained:
            yield f"federation.min_replies is {settings.min_replies}, but a round trains {trained} clients"
        for modality, count in settings.min_holders.items():
            if modality not in self.model.encoders:
                yield f"federation.min_holders.{modality}: {unknown('modality', modality, self.modalities)}"
            if count > trained:
                yield f"federation.min_holders.{modality} is {count}, but a round trains {trained} clients"


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


def plugins_of(experiment: Experiment) -> list[plugins.Plugin]:
    """All plugins of an experiment, also those that only the server needs, sorted.

    Raises ConfigError when a component cannot be loaded.
    """
    with plugins.recorded() as used:
        parse(json.loads(experiment.to_json()), "experiment")
    return sorted(used)


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


def _resolve(raw: dict[str, Any], mistakes: list[str]) -> dict[str, Any]:
    """The raw experiment with the defaults of each component. The method determines model and strategy where the
    experiment names none."""
    resolved = dict(raw)
    method = _component(resolved, "method", "method", mistakes)
    if method is not None and resolved.get("strategy") is None:
        resolved["strategy"] = {"name": getattr(method, "strategy", "fedavg")}
    _component(resolved, "strategy", "strategy", mistakes)
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
    return resolved


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
        known = list(kind.model_fields)
        mistakes += [f"{where}.{message}" for message in messages(error, known)]
        return None
    section[key] = {"name": reference["name"], **component.model_dump(mode="json")}
    return component


def messages(error: ValidationError, known: list[str] | None = None, kind: Any = Experiment) -> list[str]:
    """Pydantic's findings about a `kind` of options as our messages: the option, the mistake, the given value."""
    found = []
    for finding in error.errors(include_url=False):
        where = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            options = known if known is not None else _options_at(finding["loc"], kind)
            text = unknown("option", finding["loc"][-1], options)
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
    """The type at one step of a location: that of a field, or the member of a union with this name."""
    if hasattr(kind, "model_fields"):
        field = kind.model_fields.get(part)
        return field.annotation if field else None
    members = get_args(kind)
    named = [
        m for m in members if hasattr(m, "model_fields") and get_args(m.model_fields["name"].annotation) == (part,)
    ]
    deeper = (_below(member, part) for member in members if get_args(member))
    return named[0] if named else next((found for found in deeper if found is not None), None)


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
