"""Observed predictions as cells, the counts of cells as a tally, and the sum of tallies.

A tally contains no example: only how many examples are in each cell of a few tables, and sums over them. Tallies of
several sites are merged by addition. So every figure that is computed from a tally is the figure of the pooled data.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]


class WrittenPart(BaseModel):
    """A part in a message: the flat indices of the cells that are not empty, their counts, and the sums."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    at: list[NonNegativeInt]
    counts: list[NonNegativeInt]
    sums: list[FiniteFloat]


@dataclass(frozen=True)
class Shape:
    """The shapes of a part's counts and sums. each: how many cells one example is counted in."""

    counts: tuple[int, ...]
    sums: tuple[int, ...]
    each: int


@dataclass(frozen=True)
class Part:
    """One table of counts, and sums over the same examples. edges: the lower edges [K, U] of the bins of a histogram of
    scores if they are not the fixed ones."""

    counts: Counts
    sums: Numbers
    edges: Numbers | None = field(default=None, compare=False)

    def __add__(self, other: "Part") -> "Part":
        return Part(self.counts + other.counts, self.sums + other.sums)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Part)
            and np.array_equal(self.counts, other.counts)
            and np.array_equal(self.sums, other.sums)
        )

    @property
    def smallest(self) -> int:
        """The smallest count that is not 0; 0 if all are."""
        filled = self.counts[self.counts > 0]
        return int(filled.min()) if filled.size else 0

    def written(self) -> WrittenPart:
        """The form in messages."""
        flat = self.counts.ravel()
        at = flat.nonzero()[0]
        return WrittenPart(at=at.tolist(), counts=flat[at].tolist(), sums=self.sums.ravel().tolist())


@dataclass(frozen=True)
class Tally:
    """The counts of predictions for a number of examples, in named parts. The parts and their shapes are those of the
    task (`Task.shapes`). A part may be absent, because a site keeps it."""

    parts: Mapping[str, Part]
    each: Mapping[str, int]
    """By part, the number of cells in which one example is counted."""

    def __add__(self, other: "Tally") -> "Tally":
        parts = dict(self.parts)
        for name, part in other.parts.items():
            parts[name] = parts[name] + part if name in parts else part
        return Tally(parts, {**self.each, **other.each})

    @property
    def examples(self) -> int:
        """The number of examples. Parts that some sites keep have fewer."""
        return max((self.examples_of(name) for name in self.parts), default=0)

    def examples_of(self, name: str) -> int:
        """The number of examples of a part."""
        return int(self.parts[name].counts.sum()) // self.each[name]

    def without_small_cells(self, fewest: int) -> "Tally":
        """The parts in which every count is 0 or at least `fewest`. A part leaves whole or not at all, because figures
        of a part with single cells removed would be wrong."""
        parts = {name: part for name, part in self.parts.items() if part.smallest == 0 or part.smallest >= fewest}
        return Tally(parts, {name: self.each[name] for name in parts})

    def written(self) -> dict[str, dict[str, object]]:
        """The form in messages and checkpoints."""
        return {name: part.written().model_dump() for name, part in self.parts.items()}


@dataclass(frozen=True)
class Observed:
    """N predictions as cells of a part. cells: flat indices [N, m]. values: what is summed, [N, ...]."""

    cells: Counts
    values: Numbers
    shape: Shape
    edges: Numbers | None = None

    def part(self, weights: Counts | None = None) -> Part:
        """The counts and sums. weights: how often each example counts [N]; None: once."""
        size = int(np.prod(self.shape.counts))
        if weights is None:
            counts = np.bincount(self.cells.ravel(), minlength=size)
            return Part(counts.reshape(self.shape.counts), self.values.sum(0), self.edges)
        by_cell = np.repeat(weights, self.cells.shape[1])
        counts = np.bincount(self.cells.ravel(), weights=by_cell, minlength=size).astype(np.int64)
        return Part(counts.reshape(self.shape.counts), np.tensordot(weights, self.values, 1), self.edges)


def tally(observed: Mapping[str, Observed], weights: Counts | None = None) -> Tally:
    """The tally of observed predictions."""
    return Tally(
        {name: one.part(weights) for name, one in observed.items()},
        {name: one.shape.each for name, one in observed.items()},
    )


def read_part(written: WrittenPart, shape: Shape) -> Part:
    """The part of a message.

    Raises ValueError when it does not have the shape.
    """
    size, sums = int(np.prod(shape.counts)), int(np.prod(shape.sums))
    at, counts = np.array(written.at, np.int64), np.zeros(size, np.int64)
    if len(written.at) != len(written.counts) or (len(at) and (at.max() >= size or (np.diff(at) <= 0).any())):
        raise ValueError(f"the cells are not those of a table with {size} cells")
    if len(written.sums) != sums:
        raise ValueError(f"{len(written.sums)} sums instead of {sums}")
    counts[at] = written.counts
    return Part(counts.reshape(shape.counts), np.array(written.sums, np.float64).reshape(shape.sums))


def by_bin(values: Numbers, bins: Counts, count: int) -> Numbers:
    """The sums [N, count] of each row's values [N, m] in their bins [N, m]."""
    sums = np.zeros((len(values), count))
    np.add.at(sums, (np.arange(len(values))[:, None], bins), values)
    return sums


def read_tally(written: Mapping[str, WrittenPart], shapes: Mapping[str, Shape]) -> Tally:
    """The tally of a message or a checkpoint.

    Raises ValueError when a part is unknown or does not have its shape.
    """
    if unknown := written.keys() - shapes.keys():
        raise ValueError(f"unknown counts {min(unknown)!r}")
    parts = {name: read_part(one, shapes[name]) for name, one in written.items()}
    return Tally(parts, {name: shapes[name].each for name in parts})


def check_whole(tally: Tally) -> None:
    """Raises ValueError when the parts of one site's tally cannot be about the same examples."""
    cells = {name: int(part.counts.sum()) for name, part in tally.parts.items()}
    if uneven := [name for name, count in cells.items() if count % tally.each[name]]:
        raise ValueError(f"{uneven[0]}: not every example is counted {tally.each[uneven[0]]} times")
    if len(told := {tally.examples_of(name) for name in cells}) > 1:
        raise ValueError(f"the parts count different numbers of examples: {', '.join(map(str, sorted(told)))}")
