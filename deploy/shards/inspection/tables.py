"""The distributions of the columns of a table."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.columns import Category, Columns, Number
from common.media.table_row import TableRow
from deploy.shards.inspection import distribution

MOST_CATEGORIES = 8


@dataclass
class ColumnSeen:
    """The known cells of one column. rows: the number of rows with any cell. labels: the labels by cell."""

    column: Number | Category
    rows: int = 0
    numbers: list[float] = field(default_factory=list)
    categories: Counter[str] = field(default_factory=Counter)
    labels: dict[str, set[str]] = field(default_factory=dict)

    def add(self, row: TableRow, name: str, label: str) -> None:
        """Count the cell of a row, if it is known."""
        self.rows += 1
        if name not in row.cells:
            return
        cell = self.column.read(row.cells[name])
        self.labels.setdefault(str(cell), set()).add(label)
        if isinstance(cell, str):
            self.categories[cell] += 1
        else:
            self.numbers.append(cell)

    @property
    def missing(self) -> float:
        """The share of rows without the cell."""
        known = len(self.numbers) + self.categories.total()
        return 1 - known / self.rows if self.rows else 0.0

    @property
    def kind(self) -> str:
        """The type, with the unit of a number."""
        if isinstance(self.column, Category):
            return "category"
        return f"number, {self.column.unit}" if self.column.unit else "number without unit"

    @property
    def quantiles(self) -> list[float]:
        """Smallest number, quartiles and largest number; empty without numbers."""
        return distribution.quantiles(self.numbers)

    @property
    def histogram(self) -> list[int]:
        """The counts of bins of equal width from the smallest number to the largest one; empty without numbers."""
        return distribution.histogram(self.numbers)

    @property
    def distribution(self) -> str:
        """The most frequent categories with their counts, or the quantiles."""
        if isinstance(self.column, Category):
            more = len(self.categories) - MOST_CATEGORIES
            said = [f"{name} {count:,}" for name, count in self.categories.most_common(MOST_CATEGORIES)]
            return ", ".join([*said, *([f"{more} more"] if more > 0 else [])])
        return distribution.quantiles_in_words(self.numbers)

    @property
    def bars(self) -> str:
        """The histogram as one line of signs."""
        return distribution.bars(self.histogram)

    @property
    def problems(self) -> Iterable[str]:
        """Cells that do not fit the description, and a column that may be the label."""
        if isinstance(self.column, Number):
            if far := sum(not self.column.plausible(number) for number in self.numbers):
                yield f"{far} numbers are outside of the range {self.column.range}, and count as missing"
        elif other := sorted(self.categories.keys() - set(self.column.values)):
            yield f"columns.json does not list the categories {', '.join(other[:MOST_CATEGORIES])}"
        if not self.rows or self.missing == 1:
            yield "every cell is missing"
        told = [label for labels in self.labels.values() for label in labels]
        repeated = 2 * len(told) <= len(self.numbers) + self.categories.total()
        if repeated and len(told) == len(self.labels) == len(set(told)) > 1 and "" not in told:
            yield "it determines the label. A model must not read a column that is known only with the label"

    def to_json(self) -> dict[str, Any]:
        """JSON values of the figures."""
        said = {**self.column.model_dump(), "missing": self.missing}
        if isinstance(self.column, Category):
            return said | {"counts": dict(self.categories.most_common())}
        return said | {"quantiles": self.quantiles, "histogram": self.histogram}


class TableSeen:
    """The columns of one modality."""

    def __init__(self, columns: Columns) -> None:
        self.columns = {name: ColumnSeen(column) for name, column in columns.items()}

    def add(self, row: TableRow, label: str) -> None:
        """Count the cells of a row."""
        for name, seen in self.columns.items():
            seen.add(row, name, label)

    def problems(self) -> Iterable[str]:
        """Sentences that name the column."""
        return (f"column {name}: {problem}" for name, seen in self.columns.items() for problem in seen.problems)


def unlike_columns(here: Mapping[str, Columns], there: Mapping[str, Columns]) -> Iterable[str]:
    """The differences between the tables of two shards: columns, types, units, categories."""
    for modality in sorted(here.keys() & there.keys()):
        own, other = here[modality], there[modality]
        for name in sorted(own.keys() ^ other.keys()):
            yield f"{modality}: only {'this' if name in own else 'the other'} shard has the column {name}"
        for name in sorted(own.keys() & other.keys()):
            one, two = own[name], other[name]
            if (mine := one.unlike(two)) and (theirs := two.unlike(one)):
                yield f"{modality}, column {name}: {mine}, in the other shard {theirs}"
            elif isinstance(one, Category) and isinstance(two, Category):
                for word, values in (("this", set(one.values) - set(two.values)),
                                     ("the other", set(two.values) - set(one.values))):  # fmt: skip
                    if values:
                        yield f"{modality}, column {name}: only {word} shard has {', '.join(sorted(values))}"
