"""The published format of metrics.jsonl and summary.json, as classes from which their JSON schemas are made.

FORMAT grows when an entry is removed or changes its meaning, not when an entry is added.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FORMAT = 2
"""The version of the format."""
Bytes = dict[str, dict[str, int]]
ByMetric = dict[str, list[float | None]]


class _Published(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Reliability(_Published):
    """How often predictions are right, by bin of their probability."""

    examples: list[int]
    """The number of predictions in each of 15 equal bins."""
    right: list[int]
    """The number of those that are right or, for multi-label, the number of labels that apply."""
    confidence: list[float | None]
    """The mean probability in each bin; null for an empty bin."""


class Figures(_Published):
    """The figures of a model with one subset of modalities. Every further entry is a metric by its key, e.g.
    `accuracy`: a number, or null where it is not defined or a site's policy keeps the counts that it needs."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    examples: int
    """The number of examples that have all modalities of the subset."""
    by_class: ByMetric = {}
    """By metric, its values by class, label or target."""
    errors: dict[str, float] = {}
    """By metric, the largest error because sites send histograms of scores. Absent where nothing is binned."""
    confusion: list[list[int]] | list[list[list[int]]] | None = None
    """Counts by true and predicted class or, for multi-label, by label, truth and decision."""
    reliability: Reliability | None = None
    """The reliability diagram."""


BySubset = dict[str, Figures]


class Found(_Published):
    """The findings of a site about the values of a modality."""

    model_config = ConfigDict(extra="allow")
    values: int
    """The number of values."""
    unreadable: int
    """The number of values that cannot be read."""


class SiteLine(_Published):
    """The introduction of a site."""

    modalities: list[str]
    """The modalities that it has."""
    num_examples: int
    """Its number of examples."""
    local_dp: str
    """The noise that its policy adds to updates; "" if none."""
    unreadable: int
    """The number of values that cannot be read."""
    findings: dict[str, Found]
    """By modality, what it has found in the values."""


class ClientLine(_Published):
    """A client in a round. Entries that a site's policy keeps are empty."""

    modalities: list[str]
    """The modalities that it trained."""
    num_examples: int
    """The number of examples that it trained on."""
    losses: dict[str, float]
    """The mean of each term of the loss."""
    validation: BySubset
    """The figures of the received model on its validation examples, by subset."""
    unreadable: dict[str, int]
    """By modality, the number of values that it could not read."""
    device: str
    """The device and the precision of its training."""
    seconds: dict[str, float]
    """The seconds of each step at the client."""
    bytes_up: int
    """The bytes that it sent."""
    bytes_down: int
    """The bytes that it received."""


class RoundLine(_Published):
    """A line of metrics.jsonl: one round. Round 0 is the initial model."""

    format: int | None = None
    """The version of the format. Only in the line of round 0, as are `classes`, `sites` and `started_from`."""
    classes: list[str] | None = None
    """The classes, labels or targets."""
    sites: dict[str, SiteLine] | None = None
    """By name, the introduction of each site."""
    started_from: list[str] | None = None
    """Sentences about the model that the run started from."""
    round: int
    """The number of the round."""
    test: BySubset
    """The figures of the new model on the server's test shard, by subset; empty without a test shard."""
    validation: BySubset
    """The figures of the model that the clients received, on their validation examples together."""
    losses: dict[str, float]
    """The mean of each term of the loss over the clients."""
    aggregation: dict[str, object]
    """Figures of the strategy, e.g. the clients' weights."""
    collapsed: str
    """The reason why the new model was not taken, or ""."""
    clients: dict[str, ClientLine]
    """By site, the client in this round."""
    failed: dict[str, str]
    """By site, the reason why its update was not used."""
    refused: dict[str, str]
    """By site, the reason why it does not take part."""
    missing: dict[str, str]
    """By site, the reason why it is not connected."""
    attempts: int
    """How often the server has sent messages to sites."""
    block_bytes: Bytes
    """The bytes of the parameters by block, `up` and `down`."""
    bytes_up: int
    """The bytes that all clients sent."""
    bytes_down: int
    """The bytes that all clients received."""
    seconds: dict[str, float]
    """The seconds of each step at the server, and their `total`. `ended` is the time of the end, in seconds since
    1970."""


class Best(_Published):
    """The best model of a run."""

    round: int
    """The round that made it."""
    metric: str
    """The key of the metric that selected it."""
    subset: str
    """The subset of modalities for which the metric was measured."""
    on: Literal["validation", "test"]
    """The examples on which it was measured."""
    value: float
    """The value of the metric."""


class Summary(_Published):
    """summary.json: the result of a run."""

    format: int | None = None
    """The version of the format; absent if the run failed before it began."""
    name: str
    """The name of the run's folder."""
    status: Literal["completed", "failed"]
    """Whether the run reached its end."""
    reason: str
    """The reason of a failure, or ""."""
    engine: str
    """The engine that ran it."""
    method: str
    """The method."""
    strategy: str | None
    """The strategy."""
    dataset: str
    """The data set."""
    seed: int
    """The seed."""
    seconds: float
    """The seconds of the whole run."""
    task: Literal["single-label", "multi-label", "regression"] | None = None
    """The task."""
    rounds: int | None = None
    """The number of finished rounds."""
    metric: str | None = None
    """The key of the metric that stands for a model."""
    scores: dict[str, float | None] = {}
    """The value of this metric by subset of modalities, after the last round."""
    measured_on: Literal["test", "validation"] | None = None
    """The examples that the figures were measured on."""
    figures: BySubset = {}
    """All figures by subset, after the last round."""
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    """By subset and metric, the 95 % bootstrap interval over the test examples."""
    started_from: dict[str, object] | None = None
    """The model that the run started from, and which tensors it gave."""
    best: Best | None = None
    """The best model, if `federation.keep.best` is set."""
    stopped: str = ""
    """The reason of an early end, or ""."""
    bytes_up: int = 0
    """The bytes that all clients sent."""
    bytes_down: int = 0
    """The bytes that all clients received."""
    resumed: list[int] = []
    """The rounds after which the run was resumed."""
    modalities: list[str] = []
    """The modalities of the experiment."""
    classes: list[str] = []
    """The classes, labels or targets."""
    plugins: list[str] = []
    """The plugins that the experiment needs."""
    sites: dict[str, SiteLine] = {}
    """By name, the introduction of each site."""
    refused: dict[str, str] = {}
    """By site, the reason why it does not take part."""
    missing: dict[str, str] = {}
    """By site, the reason why it is not connected."""
    failed: dict[str, str] = {}
    """By site, the reason why its update was not used in the round that ended the run."""
