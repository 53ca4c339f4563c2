"""A row of a table as a raw value."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Cell = float | str | bool
LONGEST = 1000
"""The maximum number of characters of a cell."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """The known cells of one example, by column. A missing cell has no entry. The type of a column is a part of the
    shard or of the encoder (`common.columns`), not of the row."""

    cells: Mapping[str, Cell]

    def __str__(self) -> str:
        """JSON with the columns in alphabetical order."""
        return json.dumps(dict(self.cells), ensure_ascii=False, sort_keys=True)


def table_row(given: Mapping[Any, Any]) -> TableRow:
    """The row of a mapping of columns to cells. None, NaN and blank texts are missing cells. A row may be empty.

    Raises ValueError, with every mistake, for cells that are not a finite number, a text or a boolean.
    """
    known = {column: cell for column, cell in given.items() if not is_missing(cell)}
    if mistakes := [f"{column}: {why}" for column, cell in known.items() if (why := _fault(column, cell))]:
        raise ValueError("; ".join(mistakes))
    return TableRow({column: cell.strip() if isinstance(cell, str) else cell for column, cell in known.items()})


def row_of_json(text: str) -> TableRow:
    """The row of a JSON object.

    Raises ValueError.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(given, dict):
        raise ValueError('a JSON object of columns and cells is needed, e.g. {"age": 63, "sex": null}')
    return table_row(given)


def is_missing(cell: object) -> bool:
    """Whether a cell is missing: absent, or a blank text."""
    return not cell.strip() if isinstance(cell, str) else is_absent(cell)


def is_absent(value: object) -> bool:
    """Whether a value is JSON's null, or the NaN that spreadsheet programs write for an empty cell."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _fault(column: object, cell: object) -> str:
    """Why a cell cannot be used; "" if it can."""
    if not isinstance(column, str):
        return "the name of a column must be a text"
    if isinstance(cell, str):
        try:
            cell.encode()
        except UnicodeEncodeError:  # half a surrogate pair, which JSON allows and UTF-8 does not
            return "the text is not valid Unicode"
        return f"the text is longer than {LONGEST} characters" if len(cell) > LONGEST else ""
    if isinstance(cell, bool):
        return ""
    try:
        return "" if isinstance(cell, int | float) and math.isfinite(cell) else f"{cell!r} is not a number or a text"
    except OverflowError:
        return "the number is too large"
