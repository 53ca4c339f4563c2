"""Rows of a table as the values of a modality: finds the type of each column, and the cells that are missing."""

import argparse
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from common.columns import LONGEST, MOST_CATEGORIES, Category, Column, Columns, Number, name_mistakes
from common.config.component import MOST
from common.media.table_row import Cell
from common.modality import Modality
from common.tasks.labels import NO_LABEL, Label
from deploy.shards.own_files.names import nfc
from deploy.shards.own_files.table import Format, Table, read_table

MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "null", "?"})
"""Spellings of a missing cell, in capital or small letters."""
NUMBER = re.compile(r"[+-]?(?!0\d)(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
"""A number with a decimal point. A code such as 007 is not a number."""
DECIMAL_COMMA = re.compile(r"[+-]?(?!0\d)\d+,\d+")
NUMBER_LIKE = re.compile(r"[+\-\u2212]?(?!0\d)\d+([.,]\d+)?([eE][+-]?\d+)?\s*%?")
"""A number that is not one in a computer's spelling: a percentage, a typographic minus, more digits than fit."""
DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]\d.*)?|\d{1,2}:\d{2}(:\d{2})?")
HEADER_UNIT = re.compile(r"(.+?)\s*(?:\[([^][]+)\]|\(([^()]+)\))")
"""A header with a unit: "age [years]", "age (years)"."""
FEW = 20
"""A column with more different texts, and more of them than half of its cells, has names or remarks, not categories."""
TOO_LARGE = f"are larger than {MOST:g}: use a larger unit, or name the column in --categories or --leave-out"
SHOWN = 3
"""The maximum number of cells in a message."""


@dataclass(frozen=True)
class Hints:
    """The user's decisions about columns, by name in small letters. comma: whether numbers have decimal commas. used:
    the names that a table has."""

    numbers: Set[str] = frozenset()
    categories: Set[str] = frozenset()
    left_out: Set[str] = frozenset()
    units: Mapping[str, str] = field(default_factory=dict)
    comma: bool = False
    used: set[str] = field(default_factory=set)

    @property
    def named(self) -> dict[str, str]:
        """By name, an option that contains it."""
        options = {"--numbers": self.numbers, "--categories": self.categories, "--leave-out": self.left_out,
                   "--units": self.units}  # fmt: skip
        return {name: option for option, names in options.items() for name in names}

    def mistakes(self) -> Iterator[str]:
        """Names that no table has, once all tables are read, and names with two types."""
        for name in sorted(self.named.keys() - self.used):
            yield f"{self.named[name]}: no table has a column {name!r}"
        for name in sorted(self.numbers & self.categories):
            yield f"--numbers and --categories: {name!r} is in both"


@dataclass
class Records:
    """The rows of one modality. rows: by id, the cells that are not missing. found: the number of rows of the table.
    said: notes about the columns."""

    modality: Modality
    path: Path
    columns: Columns = field(default_factory=dict)
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)
    found: int = 0
    said: list[str] = field(default_factory=list)


def hints_of(options: argparse.Namespace, mistakes: list[str]) -> Hints:
    """The decisions in the options of `fedmosaic import`."""
    units = dict[str, str]()
    for part in _names(options.units):
        name, equals, unit = part.partition("=")
        if equals and name.strip() and unit.strip():
            units[folded(name)] = unit.strip()
        else:
            mistakes.append(f"--units: {part!r} is not COLUMN=UNIT")
    return Hints(_set(options.numbers), _set(options.categories), _set(options.leave_out), units,
                 options.decimal_comma)  # fmt: skip


def _set(given: str | None) -> Set[str]:
    return frozenset(map(folded, _names(given)))


def read_records(
    modality: Modality, path: Path, options: argparse.Namespace, hints: Hints, mistakes: list[str]
) -> Records | None:
    """The rows of a table, or None if it cannot be read. The columns of ids and labels are never a part of a row."""
    form, numbered = Format(options.encoding, options.separator), _is_same(path, options.labels)
    wanted, optional = ([], [options.id_column]) if numbered else ([options.id_column], [])
    if numbered and not options.unlabelled:
        wanted = label_columns(options)
    table = read_table(path, wanted, form, mistakes, optional)
    if table is None:
        return None
    records = Records(modality, path, found=len(table.rows))
    kept = list(_kept(table, options, hints, records.said, mistakes))
    names = _ids(table, options.id_column, mistakes)
    for place, header in kept:
        _add_column(records, names, table, place, header, hints, mistakes)
    records.rows = {name: records.rows[name] for name in names if name in records.rows}
    mistakes += [f"{path}: {mistake}" for mistake in name_mistakes(records.columns)]
    if not records.columns and not mistakes:
        mistakes.append(f"{path}: no column can be used: {'; '.join(records.said)}")
    return records


def _is_same(path: Path, labels: Path | None) -> bool:
    return labels is not None and labels.is_file() and path.samefile(labels)


def _kept(
    table: Table, options: argparse.Namespace, hints: Hints, said: list[str], mistakes: list[str]
) -> Iterator[tuple[int, str]]:
    """The places and headers of the columns that may be features."""
    excluded = {folded(options.id_column), *map(folded, label_columns(options))}
    excluded |= {folded(column) for column in _columns_of(options)} if _is_same(table.path, options.labels) else set()
    counts = Counter(map(folded, table.header))
    for place, header in enumerate(table.header):
        spellings = {folded(header), folded(name_and_unit(header)[0])}
        hints.used.update(spellings)
        if not header.strip():
            said.append(f"column {place + 1} is left out: it has no name")
        elif counts[folded(header)] > 1:
            mistakes.append(f"{table.path}: column {header!r} appears twice")
        elif spellings & excluded:
            said.append(f"column {header} is not a feature")
        elif spellings & hints.left_out:
            said.append(f"column {header} is left out (--leave-out)")
        else:
            yield place, nfc(header.strip())


def label_columns(options: argparse.Namespace) -> list[str]:
    """The columns with labels, in the table of labels."""
    return [name.strip() for name in _names(options.label_columns)] or [options.label_column]


def _columns_of(options: argparse.Namespace) -> list[str]:
    """The columns of the table of labels that are values of other modalities."""
    pairs = [*_names(options.file_columns), *_names(options.text_columns)]
    return [pair.partition("=")[2] for pair in pairs]


def _ids(table: Table, id_column: str, mistakes: list[str]) -> list[str]:
    """The id of each row: the cell of the column of ids, or the number of the row if there is no such column."""
    names, seen = list[str](), set[str]()
    for number, (line, row) in enumerate(table.rows, start=1):
        name = table.cell(row, id_column) if id_column in table.columns else str(number)
        if not name or nfc(name) in seen:
            why = f"id {name!r} appears twice" if name else "needs an id"
            mistakes.append(f"{table.path}, line {line}: {why}")
        names.append(name)
        seen.add(nfc(name))
    return names


def _add_column(
    records: Records, names: Sequence[str], table: Table, place: int, header: str, hints: Hints, mistakes: list[str]
) -> None:
    """Find the type of a column, and add its cells to the rows. A column that cannot be used is a note or a mistake."""
    cells = {n: (line, row[place]) for n, (line, row) in zip(names, table.rows, strict=True)
             if place < len(row) and row[place].casefold() not in MISSING}  # fmt: skip
    where = f"{table.path}, column {header}"
    try:
        if hints.comma and not {folded(header), folded(name_and_unit(header)[0])} & hints.categories:
            cells = {n: (line, with_point(line, text)) for n, (line, text) in cells.items()}
        found = _column(header, list(cells.values()), hints)
    except ValueError as error:
        mistakes.append(f"{where}: {error}")
        return
    if isinstance(found, str):
        records.said.append(f"column {header} is left out: {found}")
        return
    name, column = found
    if name in records.columns:
        mistakes.append(f"{where}: another column is also called {name!r}")
        return
    records.columns[name] = column
    for example, (_, cell) in cells.items():
        records.rows.setdefault(example, {})[name] = _number(cell) if isinstance(column, Number) else nfc(cell)


def with_point(line: int, text: str) -> str:
    """A number with a decimal comma as one with a decimal point; another text as it is.

    Raises ValueError for a number with a point, which may separate thousands.
    """
    if is_number(text) and "." in text:
        raise ValueError(f"{text!r} (line {line}) has a point, but --decimal-comma requires numbers such as 1234,5")
    return text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text


def _column(header: str, cells: Sequence[tuple[int, str]], hints: Hints) -> tuple[str, Column] | str:
    """The name and the description of a column, or the reason why it is left out. cells: line and text.

    Raises ValueError when the user must decide.
    """
    name, unit = name_and_unit(header)
    spellings, texts = {folded(header), folded(name)}, [text for _, text in cells]
    unit = next((hints.units[one] for one in sorted(spellings) if one in hints.units), unit)
    as_category, as_number = bool(spellings & hints.categories), bool(spellings & hints.numbers)
    others = [(line, text) for line, text in cells if not is_number(text)]
    if not cells:
        return "it is empty"
    if not as_category and (as_number or not others):
        if others:
            raise ValueError(_not_numbers(others, len(cells)))
        if large := [(line, text) for line, text in cells if abs(float(text)) > MOST]:
            raise ValueError(f"{len(large)} of {len(cells)} numbers, e.g. {_listed(large)}, {TOO_LARGE}")
        return name, Number(type="number", unit=unit)
    if as_category:
        return header, _category(texts)
    return _texts(header, texts, others, spellings, hints)


def _texts(
    header: str, texts: Sequence[str], others: Sequence[tuple[int, str]], spellings: Set[str], hints: Hints
) -> tuple[str, Column] | str:
    """The same for a column with other cells than numbers, whose type the user has not named."""
    if all(DECIMAL_COMMA.fullmatch(text) for _, text in others):
        raise ValueError(_not_numbers(others, len(texts)))
    if 2 * len(others) < len(texts) or all(NUMBER_LIKE.fullmatch(text) for _, text in others):
        raise ValueError(f"{_not_numbers(others, len(texts))}. Or name the column in --categories or --leave-out")
    if all(DATE.fullmatch(text) for text in texts):
        return "it has dates or times. A number such as the days since admission can be used instead"
    if spellings & hints.units.keys():
        raise ValueError("--units: it has categories, not numbers")
    different = len(set(texts))
    if different > max(FEW, len(texts) / 2) or different > MOST_CATEGORIES:
        return f"it has {different} different texts in {len(texts)} cells. To use it as it is, name it in --categories"
    return header, _category(texts)


def _not_numbers(others: Sequence[tuple[int, str]], count: int) -> str:
    comma = all(DECIMAL_COMMA.fullmatch(text) for _, text in others)
    remedy = "decimal commas: add --decimal-comma" if comma else "correct them or empty these cells"
    return f"{len(others)} of {count} cells are not numbers, e.g. {_listed(others)}: {remedy}"


def _listed(cells: Sequence[tuple[int, str]]) -> str:
    """A few cells with their lines."""
    return ", ".join(f"{text!r} (line {line})" for line, text in cells[:SHOWN])


def _category(texts: Iterable[str]) -> Category:
    """Raises ValueError for too many categories."""
    values = sorted({nfc(text) for text in texts})
    if len(values) > MOST_CATEGORIES:
        raise ValueError(f"it has {len(values)} categories, at most {MOST_CATEGORIES} are possible")
    if long := [value for value in values if len(value) > LONGEST or not value.isprintable()]:
        raise ValueError(f"a category must have up to {LONGEST} printable characters, not {long[0][:LONGEST]!r}")
    return Category(type="category", values=values)


def suspects(records: Records, labels: Mapping[str, Label]) -> Iterator[str]:
    """Columns that may be the label under another name, because each of several cells that repeat occurs with one label
    only."""
    for name in records.columns:
        known = [(str(cells[name]), labels[id_]) for id_, cells in records.rows.items()
                 if name in cells and labels.get(id_, NO_LABEL) != NO_LABEL]  # fmt: skip
        pairs, told, meant = set(known), {cell for cell, _ in known}, {label for _, label in known}
        if len(pairs) == len(told) <= len(known) / 2 and len(meant) > 1:
            yield f"column {name} determines the label: if it was not known before the label, add --leave-out {name}"


def is_number(text: str) -> bool:
    """Whether a cell is a finite number with a decimal point."""
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _number(text: str) -> float:
    """An integer stays one, so that the shard is easy to read."""
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def name_and_unit(header: str) -> tuple[str, str]:
    """The name and the unit in a header such as "age [years]"."""
    found = HEADER_UNIT.fullmatch(header.strip())
    return (nfc(found[1]), found[2] or found[3]) if found else (nfc(header.strip()), "")


def _names(given: str | None) -> list[str]:
    return [name for name in (given or "").split(",") if name.strip()]


def folded(name: str) -> str:
    """The form in which names of columns are compared."""
    return nfc(name).strip().casefold()
