"""The types that all parts of the project share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum

import torch
from torch import Tensor

from common.columns import Described
from common.findings import Findings
from common.modality import Modality
from common.rows import Rows

CPU = torch.device("cpu")


class Origin(IntEnum):
    """The origin of the value of one modality of one example."""

    MISSING = 0
    GENERATED = 1
    OBSERVED = 2


NO_KEYS = torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Batch:
    """B examples, column by column.

    inputs: per modality [B, ...], with zeros in rows without the modality. If it is a `Rows`, choosing examples copies
        no values; `gathered` copies them.
    origin: per modality [B] of `Origin` values.
    labels: the targets: class indices [B] int64 or, for multi-label and regression, [B, K] float32, see
        `common.tasks.targets`.
    keys: [B] int64, a number that identifies each example at its site, e.g. for the randomness of its augmentation. By
        default, the number of the row.

    Raises ValueError at construction when the columns do not agree.
    """

    inputs: Mapping[Modality, Tensor]
    origin: Mapping[Modality, Tensor]
    labels: Tensor
    keys: Tensor = field(default_factory=lambda: NO_KEYS)
    _host: Mapping[Modality, Tensor] | None = field(default=None, repr=False)
    """A copy of `origin` in the memory of the processor, if the batch is on another device."""

    def __post_init__(self) -> None:
        if self.inputs.keys() != self.origin.keys():
            raise ValueError(f"inputs have modalities {sorted(self.inputs)}, origin has {sorted(self.origin)}")
        if self.keys is NO_KEYS:
            object.__setattr__(self, "keys", torch.arange(len(self.labels)).to(self.labels.device))
        for name, columns in (("inputs", self.inputs), ("origin", self.origin)):
            for modality, count in _counts(columns).items():
                if count != len(self.labels):
                    raise ValueError(f"{name}[{modality!r}] has {count} rows, labels have {len(self.labels)}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def modalities(self) -> list[Modality]:
        """The modalities that have a column, in alphabetical order. A row may lack any of them."""
        return sorted(self.inputs)

    def has(self, modality: Modality, origin: Origin | None = None) -> Tensor:
        """A mask [B] bool of the rows that have the modality. origin: the origin that the value must have; None:
        observed or generated."""
        if modality not in self.origin:
            return torch.zeros(len(self), dtype=torch.bool, device=self.device)
        return self.origin[modality] != Origin.MISSING if origin is None else self.origin[modality] == origin

    @property
    def _known(self) -> Mapping[Modality, Tensor]:
        """`origin` in the memory of the processor."""
        return self.origin if self._host is None else self._host

    def holds(self, modality: Modality) -> bool:
        """Whether any row has the modality. Unlike `has(modality).any()`, this does not wait for the device."""
        return modality in self._known and bool((self._known[modality] != Origin.MISSING).any())

    def is_full(self, modalities: Iterable[Modality]) -> bool:
        """Whether every row has all of these modalities. Does not wait for the device."""
        return all(m in self._known and bool((self._known[m] != Origin.MISSING).all()) for m in modalities)

    def index(self, *modalities: Modality, origin: Origin | None = None) -> Tensor:
        """The numbers [n] of the rows that have all of these modalities, on the device. Unlike the selection of rows by
        a mask, the selection by these numbers does not wait for the device. origin: the origin that the values must
        have; None: observed or generated."""
        known = [self._known[m] for m in modalities if m in self._known]
        present = [column != Origin.MISSING if origin is None else column == origin for column in known]
        if len(present) < len(modalities):
            return torch.empty(0, dtype=torch.int64).to(self.device)
        return torch.stack(present).all(0).nonzero()[:, 0].to(self.device, non_blocking=True)

    def rows(self, index: Tensor) -> "Batch":
        """The rows that an index or a mask [B] bool selects."""
        inputs = self.inputs
        return Batch(
            inputs.rows(index) if isinstance(inputs, Rows) else {m: x[index] for m, x in inputs.items()},
            {m: o[index] for m, o in self.origin.items()},
            self.labels[index],
            self.keys[index],
            self._host and {m: o[index.to(CPU)] for m, o in self._host.items()},
        )

    def gathered(self) -> "Batch":
        """The same examples with their inputs in memory."""
        return replace(self, inputs=dict(self.inputs)) if isinstance(self.inputs, Rows) else self

    @property
    def device(self) -> torch.device:
        """The device of the columns."""
        return self.labels.device

    def to(self, device: torch.device) -> "Batch":
        """The same examples, with their inputs in the memory of a device. From pinned memory, the copy is
        asynchronous."""
        if device == self.device:
            return self.gathered()
        inputs = {m: x.to(device, non_blocking=True) for m, x in self.inputs.items()}
        origin = {m: o.to(device, non_blocking=True) for m, o in self.origin.items()}
        labels, keys = (column.to(device, non_blocking=True) for column in (self.labels, self.keys))
        return Batch(inputs, origin, labels, keys, None if device == CPU else self._known)

    def pin_memory(self) -> "Batch":
        """The same examples in pinned memory, from which copies to a GPU are fast."""
        inputs = {m: x.pin_memory() for m, x in self.inputs.items()}
        origin = {m: o.pin_memory() for m, o in self.origin.items()}
        return Batch(inputs, origin, self.labels.pin_memory(), self.keys.pin_memory())

    def complete(self, modalities: Iterable[Modality]) -> "Batch":
        """The examples that have all of these modalities."""
        return self.rows(torch.stack([self.has(m) for m in modalities]).all(0))

    def observed(self) -> "Batch":
        """The same examples without generated values. Examples without any observed value are left out."""
        real = {m: o == Origin.OBSERVED for m, o in self.origin.items()}
        inputs = self.inputs
        kept = Batch(
            inputs.where(real)
            if isinstance(inputs, Rows)
            else {m: torch.where(real[m].reshape(-1, *[1] * (x.dim() - 1)), x, 0) for m, x in inputs.items()},
            {m: torch.where(real[m], o, int(Origin.MISSING)) for m, o in self.origin.items()},
            self.labels,
            self.keys,
            self._host
            and {m: torch.where(o == Origin.OBSERVED, o, int(Origin.MISSING)) for m, o in self._host.items()},
        )
        return kept.rows(torch.stack(list(real.values())).any(0))

    def only(self, kept: Iterable[Modality]) -> "Batch":
        """The same examples, in which all other modalities are missing."""
        keep = set(kept)
        return Batch(
            {m: x if m in keep else torch.zeros_like(x) for m, x in self.inputs.items()},
            {m: _kept(o, m in keep) for m, o in self.origin.items()},
            self.labels,
            self.keys,
            self._host and {m: _kept(o, m in keep) for m, o in self._host.items()},
        )


def _kept(origin: Tensor, keep: bool) -> Tensor:
    return origin if keep else torch.full_like(origin, Origin.MISSING)


def _counts(columns: Mapping[Modality, Tensor]) -> dict[Modality, int]:
    return columns.counts() if isinstance(columns, Rows) else {m: len(column) for m, column in columns.items()}


@dataclass(frozen=True)
class Site:
    """The information that a site sends to the server about itself.

    local_dp: a description of the noise that the site's policy adds to its updates, or "". bases: the pre-trained
    weights that its encoders use, by modality, see `common.encoders.base.Encoder.base`. tables: the columns of its
    tables, if the server has asked for them.
    """

    name: str
    modalities: frozenset[Modality]
    classes: tuple[str, ...]
    num_examples: int
    findings: Mapping[Modality, Findings]
    local_dp: str = ""
    bases: Mapping[Modality, str] = field(default_factory=dict)
    tables: Mapping[Modality, Mapping[str, Described]] = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """The result of a client's training in a round: the parameters of the blocks that it holds, and the number of
    examples on which they were trained."""

    site: str
    held: frozenset[Modality]
    params: Mapping[str, Tensor]
    num_examples: int
