"""A table in a text file that a spreadsheet program or a database exported."""

import codecs
import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
SEPARATORS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""Names that --separator accepts instead of the sign itself."""
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""The first bytes of the new and the old file format of spreadsheet programs."""


@dataclass(frozen=True)
class Table:
    """The rows of a table.

    rows: the line number and the cells, without blanks around them. columns: the index of each wanted column (id,
    label, ...). said: notes about the file's format.
    """

    path: Path
    header: Sequence[str]
    rows: Sequence[tuple[int, Sequence[str]]]
    columns: Mapping[str, int]
    said: Sequence[str]

    def cell(self, row: Sequence[str], column: str) -> str:
        """The cell of a row in a column, or "" if the row is too short."""
        place = self.columns[column]
        return row[place] if place < len(row) else ""


@dataclass(frozen=True)
class Format:
    """The file's format according to the user. None: detect it."""

    encoding: str | None = None
    separator: str | None = None


def read_table(
    path: Path, wanted: Sequence[str], form: Format, mistakes: list[str], optional: Sequence[str] = ()
) -> Table | None:
    """The table of a file, or None, with the reason in `mistakes`, if it cannot be read.

    Only reliable properties are detected. UTF-8 and UTF-16 are detectable, other encodings are not. The separator is
    the one with which the header has the wanted columns. `said` lists the detected properties.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        mistakes.append(f"{path} cannot be read: {error.strerror}")
        return None
    said: list[str] = []
    text = _decoded(path, content, form.encoding, said, mistakes)
    if text is None:
        return None
    separator = _separator(path, text, wanted, form.separator, mistakes)
    if separator is None:
        return None
    if separator != ",":
        said.append(f"separated by {SEPARATORS.get(separator, repr(separator))}")
    try:
        rows = list(_rows(text, separator))
    except csv.Error as error:
        mistakes.append(f"{path} is not a table separated by {SEPARATORS.get(separator, repr(separator))}: {error}")
        return None
    columns = _columns(path, rows[0][1], wanted, optional, said, mistakes)
    return Table(path, rows[0][1], rows[1:], columns, said) if columns is not None else None


def _decoded(path: Path, content: bytes, encoding: str | None, said: list[str], mistakes: list[str]) -> str | None:
    if content.startswith(WORKBOOKS):
        mistakes.append(f"{path} is a workbook of a spreadsheet program: export the sheet as CSV")
        return None
    try:
        if encoding is not None:
            return content.decode(encoding)
        if content.startswith(UTF16_MARKS):
            said.append("read as UTF-16")
            return content.decode("utf-16")
        return content.decode("utf-8-sig")
    except LookupError:
        mistakes.append(f"--encoding: Python does not have an encoding {encoding!r}")
    except UnicodeDecodeError as error:
        if encoding is not None:
            mistakes.append(f"{path} is not text in {encoding}: {error.reason} at byte {error.start}")
        else:
            mistakes.append(f"{path} is not UTF-8 text; {_seems(content)}: name the encoding with --encoding")
    return None


def _seems(content: bytes) -> str:
    if b"\0" in content[:1000]:
        return "it seems to be UTF-16 (utf-16-le or utf-16-be)"
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "it may have the encoding of another language's Windows (cp1250, cp1251, cp932, gb18030, ...)"
    return "it seems to be cp1252 (from Windows in western languages)"


def _separator(path: Path, text: str, wanted: Sequence[str], given: str | None, mistakes: list[str]) -> str | None:
    if given is not None:
        separator = NAMES.get(given, given)
        if len(separator) == 1:
            return separator
        mistakes.append(f"--separator: {given!r} is neither a single sign nor one of {', '.join(NAMES)}")
        return None
    first = next(iter(text.splitlines()), "")
    fitting = [one for one in SEPARATORS if _has(first, one, wanted)]
    if len(fitting) == 1 or (len(wanted) == 1 and fitting):
        return fitting[0]
    needed = ", ".join(wanted)
    shown = first if len(first) <= 200 else f"{first[:200]} ..."
    mistakes.append(
        f"{path}: the first line must contain the column{'s' * (len(wanted) != 1)} {needed}, but it is {shown!r}. Set "
        "the columns' names with --id-column and --label-column, and the separator with --separator"
    )
    return None


def _has(line: str, separator: str, wanted: Sequence[str]) -> bool:
    try:
        cells = {_folded(cell) for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])}
    except csv.Error:
        return False
    return all(_folded(name) in cells for name in wanted)


def _rows(text: str, separator: str) -> "csv.Iterator":  # type: ignore[name-defined]
    """Yield the line number and the cells of every row that is not empty, the header first."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, [cell.strip() for cell in row]


def _columns(
    path: Path,
    header: Sequence[str],
    wanted: Sequence[str],
    optional: Sequence[str],
    said: list[str],
    mistakes: list[str],
) -> dict[str, int] | None:
    counts = Counter(map(_folded, header))
    there = [name for name in (*wanted, *optional) if counts[_folded(name)]]
    twice = [name for name in there if counts[_folded(name)] > 1]
    missing = [name for name in wanted if not counts[_folded(name)]]
    mistakes += [f"{path}: column {name!r} appears twice: {','.join(header)}" for name in twice]
    mistakes += [f"{path}: there is no column {name!r}: {','.join(header)}" for name in missing]
    if twice or missing:
        return None
    places = {name: header.index(name) if name in header else _place(header, name) for name in there}
    if renamed := [f"{header[places[name]]} as {name}" for name in there if header[places[name]] != name]:
        said.append(f"its header is {','.join(header)}: using {', '.join(renamed)}")
    return places


def _place(header: Sequence[str], name: str) -> int:
    return [_folded(cell) for cell in header].index(_folded(name))


def _folded(name: str) -> str:
    return name.strip().casefold()
