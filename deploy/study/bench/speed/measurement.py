"""The base of every measurement of `fedmosaic bench speed`."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal


@dataclass(frozen=True)
class Sample:
    """One repeat. stock, ours: in the measurement's unit. ratio: the value that the goal bounds. bare: the value of a
    plain PyTorch loop, if there is one."""

    stock: float
    ours: float
    ratio: float
    bare: float | None = None


@dataclass(frozen=True)
class Goal:
    """A bound of the ratio. "exactly" allows a relative error of 1e-9."""

    kind: Literal["at most", "at least", "exactly"]
    bound: float

    def met(self, ratio: float) -> bool:
        """Whether a ratio is within the bound."""
        if self.kind == "exactly":
            return abs(ratio - self.bound) <= 1e-9 * self.bound
        return ratio <= self.bound if self.kind == "at most" else ratio >= self.bound

    def __str__(self) -> str:
        return f"{self.kind} {self.bound:.3g}"


class Measurement(ABC):
    """A measurement.

    name: its name for --only. what: its description. unit: the unit of stock and ours. ratio: the definition of the
    ratio. small: whether to use the tiny sizes of tests, which give no meaningful figures.
    """

    name: ClassVar[str]
    what: ClassVar[str]
    unit: ClassVar[str]
    ratio: ClassVar[str]
    goal: ClassVar[Goal]

    def __init__(self, small: bool = False) -> None:
        self.small = small

    @abstractmethod
    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Measure and yield the samples. work: an empty folder."""


@dataclass(frozen=True)
class Row:
    """A row of the table: medians over the repeats. spread: the largest ratio minus the smallest."""

    name: str
    what: str
    unit: str
    stock: float
    ours: float
    bare: float | None
    ratio: float
    ratio_of: str
    spread: float
    goal: str
    met: bool
    repeats: int

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def row(measurement: Measurement, samples: list[Sample]) -> Row:
    """The row of a measurement."""
    ratios = [sample.ratio for sample in samples]
    bare = [sample.bare for sample in samples if sample.bare is not None]
    ratio = statistics.median(ratios)
    return Row(
        measurement.name,
        measurement.what,
        measurement.unit,
        statistics.median(sample.stock for sample in samples),
        statistics.median(sample.ours for sample in samples),
        statistics.median(bare) if bare else None,
        ratio,
        measurement.ratio,
        max(ratios) - min(ratios),
        str(measurement.goal),
        measurement.goal.met(ratio),
        len(samples),
    )
