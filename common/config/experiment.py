"""The sections and options of an experiment. One YAML file is one experiment; `common/config/reading.py` reads it."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from common.config.component import Options, Reference, build, unknown
from common.config.selection import Selection, selection_mistakes, selection_of
from common.config.task import MultiLabel, Regression, SingleLabel, Task
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
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """Learning rate after the warm-up. `cosine` and `linear` lower it from `lr` to nearly 0, over the rest of all
    rounds: epoch by epoch, or step by step with `steps`."""
    warmup: float = Field(0.0, ge=0)
    """Epochs, or steps with `steps`, in which the learning rate rises step by step from nearly 0 to `lr`. They are
    counted over all rounds. 0: no warm-up."""
    epochs: int | None = Field(None, ge=1, le=100_000)
    """Passes over a client's examples per round. None: 1, or as many as `steps` needs."""
    steps: int | None = Field(None, ge=1, le=10_000_000)
    """Steps of the optimizer per round, the same number at every client, in place of `epochs`. A client passes over its
    examples as often as needed, in a new random order each time, and may stop within a pass. None: `epochs` counts."""
    batch_size: int = Field(32, ge=2, le=1_000_000)
    """Examples per step."""
    lr: float = Field(gt=0)
    """Learning rate."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Momentum of `sgd`; `adamw` does not use it."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay of the optimizer."""
    decay_norms: bool = True
    """Whether weight decay also applies to parameters with one dimension: biases, and the weights of normalisation
    layers."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest L2 norm of the gradient of all trained parameters together. A larger gradient is scaled down to this
    norm. None: no clipping."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that the cross entropy divides equally among all classes or, for multi-label, between present
    and absent. 0: the labels as they are. Not for regression."""
    class_weights: Literal["inverse"] | dict[str, float] | None = None
    """Weights of the classes in the cross entropy. `inverse`: each client weights a class by the inverse of its share
    of the client's own training examples or, for multi-label, the presence of a label by absent / present examples. By
    name: these weights, and 1 for classes or labels that are not listed. None: no weights. Not for regression."""
    freeze: dict[Modality, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """By modality, the number of first rounds in which its encoder is not trained."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type in which the layers compute while they are trained (automatic mixed precision). Weights, and the parameters
    in messages, stay float32. float16 also scales the loss."""
    tf32: bool = False
    """Whether matrix products and convolutions of float32 may round their factors to 10 bits, which is faster on NVIDIA
    GPUs since 2020."""
    compile: bool = False
    """Whether torch compiles the encoders that are trained. This takes minutes once and needs a C++ compiler at the
    site. Worthwhile for large encoders on GPUs."""
    deterministic: bool | None = None
    """`true`: one thread and deterministic kernels, so that results have the same bits with every engine. `false`: all
    cores or the fastest kernels of the device, so that results differ by rounding errors. None: `true` if the run is on
    one machine, `false` at sites that `fedmosaic node` connects."""

    @model_validator(mode="before")
    @classmethod
    def _one_epoch_by_default(cls, given: Any) -> Any:
        counted = isinstance(given, dict) and any(given.get(unit) is not None for unit in ("epochs", "steps"))
        return given if counted or not isinstance(given, dict) else {**given, "epochs": 1}

    @model_validator(mode="after")
    def _epochs_or_steps(self) -> Self:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"epochs is {self.epochs} and steps is {self.steps}: a round has one of them; set the other to null"
            )
        return self

    @property
    def per_round(self) -> int:
        """The length of a round in the unit of `warmup`: epochs, or steps with `steps`."""
        return self.steps or self.epochs or 1

    @field_validator("class_weights", mode="before")
    @classmethod
    def _are_weights(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            if value not in (None, "inverse"):
                raise ValueError(f"inverse, weights by class name, or null is needed, not {value!r}")
            return value
        for name, weight in value.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight <= 0:
                raise ValueError(f"the weight of {name!r} must be a number greater than 0, not {weight!r}")
        return value


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


class Keep(Options):
    """The models that a run folder contains at the end."""

    best: str | None = None
    """The rule that selects the best model, METRIC[@SUBSET] on validation|test, e.g. `macro_f1@audio+image on
    validation`. SUBSET is the modalities of the input, by default all. The clients validate the model that they
    receive, so `validation` compares the models of all rounds but the last. None: no best model is kept."""
    last: bool = True
    """Whether the last model is kept in addition to the best one. `false` needs `best`."""


class Federation(Options):
    """Rounds, and the sites that take part."""

    rounds: int = Field(ge=1, le=1_000_000)
    """Number of rounds."""
    keep: Keep = Keep()
    """The models that are kept."""
    patience: int | None = Field(None, ge=1)
    """Number of measured rounds without a better model by `keep.best` after which the run ends early. None: the run has
    all rounds."""
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
    task: Task = SingleLabel()
    """The prediction for an example: one class, any number of labels, or numbers."""
    metrics: list[Reference] = Field(default_factory=list)
    """Further metrics, e.g. sensitivity at a threshold. Every run has the metrics of its task that need no options."""
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

    @property
    def selection(self) -> Selection | None:
        """The rule that selects the best model; None if no best model is kept."""
        best = self.federation.keep.best
        return None if best is None else selection_of(best, self.modalities)

    def check_classes(self, classes: Sequence[str]) -> None:
        """Raises ConfigError when an option names a class, label or target that is not among `classes`."""
        if mistakes := list(self._unknown_classes(classes)):
            raise ConfigError(f"experiment {self.name}", mistakes)

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
        yield from self._untrainable()
        if isinstance(self.task, Regression):
            for option in ("class_weights", "label_smoothing"):
                if getattr(self.train, option):
                    yield f"train.{option}: a regression has no classes; remove the option"
        yield from self._unselectable()
        if self.data.classes is not None:
            yield from self._unknown_classes(self.data.classes)

    def _untrainable(self) -> Iterator[str]:
        settings, rounds = self.train, self.federation.rounds
        unit, length = "steps" if settings.steps else "epochs", rounds * settings.per_round
        if settings.warmup > length:
            yield f"train.warmup is {settings.warmup:g} {unit}, but the run has {length}"
        for modality, count in settings.freeze.items():
            if modality not in self.model.encoders:
                yield f"train.freeze.{modality}: {unknown('modality', modality, self.modalities)}"
            if count > rounds:
                yield f"train.freeze.{modality} is {count}, but federation.rounds is {rounds}"

    def _unselectable(self) -> Iterator[str]:
        keep, patience = self.federation.keep, self.federation.patience
        if keep.best is None:
            if not keep.last:
                yield "federation.keep.last is false, which needs federation.keep.best"
            if patience is not None:
                yield f"federation.patience is {patience}, which needs federation.keep.best"
            return
        mistakes = list(selection_mistakes(keep.best, self.modalities))
        yield from (f"federation.keep.best: {mistake}" for mistake in mistakes)
        if not mistakes and selection_of(keep.best, self.modalities).on == "validation" and not self.data.validation:
            yield f"federation.keep.best is {keep.best!r}, but data.validation is 0"

    def _unknown_classes(self, classes: Sequence[str]) -> Iterator[str]:
        weights, task = self.train.class_weights, self.task
        named = {"train.class_weights": weights} if isinstance(weights, dict) else {}
        if isinstance(task, MultiLabel):
            named["task.thresholds"] = task.thresholds
        if isinstance(task, Regression):
            named |= {"task.mean": task.mean, "task.std": task.std}
        for option, values in named.items():
            for name in values:
                if name not in classes:
                    yield f"{option}.{name}: {unknown('class', name, list(classes))}"
