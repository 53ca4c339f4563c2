"""The columns of a table: the type of their cells, units, categories and plausible ranges.

A shard describes its columns in columns.json. A model has agreed columns, which also contain the mean and the standard
deviation of each number.
"""

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from common.config.component import MOST, Options
from common.media.table_row import Cell
from common.words.printable import PLAIN

MOST_COLUMNS, MOST_CATEGORIES, LONGEST = 2000, 1000, 200
"""The maximum numbers of columns of a table and of categories of a column, and characters of a name."""
Word = Annotated[str, Field(min_length=1, max_length=LONGEST, pattern=PLAIN)]
FORBIDDEN = ("id", "label")
"""Names that no column can have, because a model must not read an example's id or label."""


class Number(Options):
    """A column of numbers. A boolean counts as 0 or 1."""

    type: Literal["number"]
    """The cells are numbers."""
    unit: str = Field("", max_length=LONGEST, pattern=PLAIN)
    """The unit of the numbers, the same at all sites. Empty for a number without a unit."""
    range: list[float] | None = Field(None, min_length=2, max_length=2)
    """The smallest and the largest plausible number. A number outside of the range is reported, and counts as missing.
    None: every number is plausible."""

    @field_validator("unit")
    @classmethod
    def _plain(cls, unit: str) -> str:
        # The micro sign and the Greek letter look the same.
        return unicodedata.normalize("NFKC", unit).strip()

    @field_validator("range")
    @classmethod
    def _ordered(cls, given: list[float] | None) -> list[float] | None:
        if given is not None and given[0] >= given[1]:
            raise ValueError(f"the first number must be smaller than the second one, not {given}")
        return given

    def read(self, cell: Cell) -> float:
        """The number in a cell.

        Raises ValueError for a text, and for a number whose mean no description and no experiment could contain.
        """
        if isinstance(cell, str):
            raise ValueError(f"{cell!r} is a text, but the column has numbers")
        if abs(cell) > MOST:
            raise ValueError(f"{cell:g} is larger than {MOST:g}: use a larger unit")
        return float(cell)

    def plausible(self, number: float) -> bool:
        """Whether a number is in the range."""
        return self.range is None or self.range[0] <= number <= self.range[1]

    def unlike(self, other: "Column") -> str | None:
        """The difference in type or unit to the same column elsewhere; None if there is none."""
        if not isinstance(other, Number):
            return "its type is number"
        return None if self.unit == other.unit else f"its unit is {self.unit or 'not given'}"


class ScaledNumber(Number):
    """A column of numbers with the values that scale it."""

    mean: float
    """Mean of the numbers. It is subtracted."""
    std: float = Field(gt=0)
    """Standard deviation of the numbers. The difference to the mean is divided by it."""


class Category(Options):
    """A column of categories. Cells are texts, integers or booleans (the categories `true` and `false`)."""

    type: Literal["category"]
    """The cells are categories."""
    values: list[Word] = Field(min_length=1, max_length=MOST_CATEGORIES)
    """The categories. Any other category counts as unknown and is reported."""

    @field_validator("values")
    @classmethod
    def _plain(cls, values: list[str]) -> list[str]:
        # A category in a cell is compared in the same form.
        names = [name_of(value) for value in values]
        if "" in names or len(set(names)) != len(names):
            raise ValueError("the values must be different names")
        return names

    def read(self, cell: Cell) -> str:
        """The category in a cell.

        Raises ValueError.
        """
        return name_of(cell)

    def unlike(self, other: "Column") -> str | None:
        """The difference in type to the same column elsewhere; None if there is none."""
        return None if isinstance(other, Category) else "its type is category"


Column = Annotated[Number | Category, Field(discriminator="type")]
"""A column as a site describes it."""
Agreed = Annotated[ScaledNumber | Category, Field(discriminator="type")]
"""A column of a model."""
Columns = dict[Word, Column]


class Described(BaseModel):
    """A site's description of one of its columns.

    For numbers: the count of the numbers in the site's examples, their mean and their variance (the mean squared
    distance from the mean). mean, variance: None if the site's policy keeps them, or if there are too few numbers.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)

    column: Column
    count: int = Field(0, ge=0, le=10**12)
    mean: float | None = Field(None, ge=-MOST, le=MOST)
    variance: float | None = Field(None, ge=0, le=MOST**2)


DescribedTables = dict[str, dict[Word, Described]]
"""The columns of a site's tables, by modality."""
AgreedColumns = dict[Word, Agreed]


def name_of(cell: Cell) -> str:
    """The category in a cell: a text in Unicode form NFC, an integer, or a boolean.

    Raises ValueError for other numbers.
    """
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, str):
        return unicodedata.normalize("NFC", cell).strip()
    if cell != int(cell):
        raise ValueError(f"{cell!r} is a number with a fraction, but the column has categories")
    return str(int(cell))


def cell_mistakes(cells: Mapping[str, Cell], columns: Mapping[str, Number | Category]) -> list[str]:
    """The cells of a row that do not fit its columns, with the reasons."""
    mistakes = [f"{name} is not a column" for name in cells if name not in columns]
    for name in cells.keys() & columns.keys():
        try:
            columns[name].read(cells[name])
        except ValueError as error:
            mistakes.append(f"{name}: {error}")
    return sorted(mistakes)


def name_mistakes(columns: Mapping[str, object]) -> list[str]:
    """Mistakes in the names of columns."""
    mistakes = [
        f"{name!r} cannot be a column of a table, because the model must not read it"
        for name in columns
        if name.strip().casefold() in FORBIDDEN
    ]
    wrong = [name for name in columns if len(name) > LONGEST or not name.isprintable()]
    mistakes += [f"the name of a column must have up to {LONGEST} printable characters, not {name!r}" for name in wrong]
    if len(columns) > MOST_COLUMNS:
        mistakes.append(f"a table has at most {MOST_COLUMNS} columns, not {len(columns)}")
    return mistakes
