"""The labels in a table: one class, several labels in a cell, one column per label, or numbers."""

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence

from common.config.component import MOST
from common.tasks.labels import NO_LABEL, Label, names_in
from deploy.shards.own_files.folders import LeftOut
from deploy.shards.own_files.records import DECIMAL_COMMA, MISSING, is_number, label_columns, with_point
from deploy.shards.own_files.table import NAMES, Table

SEPARATORS = (";", "|")
"""The signs between labels of one cell that need no option."""
FLAGS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
PRESENT, ABSENT, UNCERTAIN = 1.0, 0.0, -1.0
"""The numbers in a column of one label."""
PROGRAM = ("{", "[")
"""The first signs of a dictionary or a list that a program wrote into a cell."""
DROP = "drop"
UNDECIDED = {
    "--uncertain": "labels are uncertain (-1)",
    "--blank": "cells of labels are empty",
}
"""By option that decides about cells, the cells."""
CHOICES = {"--uncertain": "absent, present or drop", "--blank": "absent or drop"}


def option_mistakes(options: argparse.Namespace, classes: Sequence[str]) -> Iterator[str]:
    """Mistakes in the options for labels, without the table. classes: the names in --classes."""
    task, columns = options.task, _named(options.label_columns)
    multi_label = task == "multi-label"
    if task == "single-label" and columns:
        yield "--label-columns: an example has one class in --label-column. Set --task multi-label or --task regression"
    if task == "single-label" and options.blank:
        yield "--blank: every example needs a class. Set --task multi-label or --task regression"
    if task == "regression" and options.blank == "absent":
        yield "--blank absent: a target cannot be absent. With --blank drop, the row is left out"
    if columns and options.label_column != "label":
        yield "--label-column and --label-columns cannot be used together"
    if options.uncertain and not (multi_label and columns):
        yield "--uncertain is for --task multi-label with --label-columns"
    if options.label_separator is not None and (not multi_label or columns or not options.label_separator.strip()):
        yield "--label-separator is the sign between the labels in one cell, for --task multi-label with --label-column"
    if options.label_columns is not None and (not all(columns) or len(set(columns)) != len(columns)):
        yield f"--label-columns: {options.label_columns!r} is not a list of different names, separated by commas"
    elif classes and (columns or task == "regression") and set(label_columns(options)) != set(classes):
        yield "--classes must have the names of the columns with labels, in any order"
    if task != "single-label" and not options.labels and not options.unlabelled:
        yield f"--task {task} needs --labels TABLE, because the name of a folder is one class"


def names_of(options: argparse.Namespace, classes: Sequence[str], labels: Iterable[Label]) -> list[str]:
    """The classes, labels or targets of a shard: those of --classes, else the columns, else those found, sorted."""
    if classes or options.unlabelled:
        return list(classes)
    if options.label_columns or options.task == "regression":
        return label_columns(options)
    return sorted({name for label in labels for name in names_in(options.task, label)})


class LabelReader:
    """Reads the labels of the rows of a table.

    left_out: receives the ids of the rows that --uncertain or --blank leaves out.
    """

    def __init__(self, table: Table, options: argparse.Namespace, classes: Sequence[str], left_out: LeftOut) -> None:
        self.table, self.options, self.classes, self.left_out = table, options, classes, left_out
        self.columns = label_columns(options)
        self._undecided: dict[str, list[str]] = {}
        self._signs, self._commas = dict[str, int](), dict[str, int]()

    def read(self, name: str, line: int, row: Sequence[str]) -> Label | None:
        """The label of the example `name`, or None if its row is left out.

        Raises ValueError with every mistake in the row.
        """
        if self.options.unlabelled:
            return NO_LABEL
        cells = {column: self.table.cell(row, column) for column in self.columns}
        if self.options.task == "single-label":
            return self._known([cells[self.columns[0]]])[0]
        dropped = set[str]()
        if self.options.task == "regression":
            label: Label = self._numbers(cells, line, dropped)
        elif self.options.label_columns:
            label = self._flags(cells, line, dropped)
        else:
            label = self._listed(cells[self.columns[0]], line, dropped)
        for option in dropped:
            self.left_out.setdefault(f"{UNDECIDED[option]} ({option} drop)", []).append(name)
        return None if dropped else label

    def mistakes(self) -> Iterator[str]:
        """Decisions that the user must take, once all rows are read."""
        for option, places in self._undecided.items():
            choices = "drop" if self.options.task == "regression" else CHOICES[option]
            what = f"{UNDECIDED[option]}, {len(places)} in all, e.g. {places[0]}"
            yield f"{self.table.path}: {what}. Choose {option} {choices}; drop leaves out the rows"
        if len(self._signs) > 1:
            found = " and ".join(f"{sign!r} (line {line})" for sign, line in self._signs.items())
            yield f"{self.table.path}: the labels contain {found}: name the separator with --label-separator"
        if self._commas and not self._signs:
            cell, line = next(iter(self._commas.items()))
            what = f"labels such as {cell!r} (line {line}) contain commas"
            yield f"{self.table.path}: {what}: name the separator with --label-separator, e.g. comma, or ';' for none"

    def _known(self, names: Sequence[str]) -> Sequence[str]:
        if not all(names):
            raise ValueError("needs an id and a label")
        if self.classes and (unknown := [name for name in names if name not in self.classes]):
            raise ValueError("; ".join(f"label {name!r} is not in --classes" for name in unknown))
        return names

    def _listed(self, cell: str, line: int, dropped: set[str]) -> tuple[str, ...]:
        """The labels in one cell."""
        if cell.startswith(PROGRAM):
            raise ValueError(
                f"label {cell!r} was written by a program: convert it to labels separated by ';', "
                "see docs/how-to/tasks.md"
            )
        if cell.casefold() in MISSING:
            self._decide("--blank", f"line {line}", dropped)
            return ()
        given = self.options.label_separator
        if given is None:
            self._signs |= {sign: line for sign in SEPARATORS if sign in cell and sign not in self._signs}
            if "," in cell:
                self._commas.setdefault(cell, line)
            given = next((sign for sign in SEPARATORS if sign in cell), SEPARATORS[0])
        names = [name for part in cell.split(NAMES.get(given, given)) if (name := part.strip())]
        if not names:
            self._decide("--blank", f"line {line}", dropped)
        return tuple(self._known(list(dict.fromkeys(names))))

    def _flags(self, cells: Mapping[str, str], line: int, dropped: set[str]) -> tuple[str, ...]:
        """The labels whose columns contain a 1."""
        wrong = [f"column {column} is {cell!r}, not 0 or 1" for column, cell in cells.items() if _flag(cell) is None]
        if wrong:
            raise ValueError("; ".join(wrong))
        present = set[str]()
        for column, cell in cells.items():
            choice = {PRESENT: "present", ABSENT: "absent"}.get(flag := _flag(cell) or ABSENT)
            if cell.casefold() in MISSING or flag == UNCERTAIN:
                option = "--uncertain" if flag == UNCERTAIN else "--blank"
                choice = self._decide(option, f"line {line}, column {column}", dropped)
            if choice == "present":
                present.add(column)
        return tuple(name for name in self.classes or self.columns if name in present)

    def _numbers(self, cells: Mapping[str, str], line: int, dropped: set[str]) -> tuple[float, ...]:
        """The value of each target."""
        wrong, values = [], dict[str, float]()
        for column, cell in cells.items():
            if cell.casefold() in MISSING:
                self._decide("--blank", f"line {line}, column {column}", dropped)
                continue
            try:
                values[column] = self._number(cell, line)
            except ValueError as error:
                wrong.append(f"column {column}: {error}")
        if wrong:
            raise ValueError("; ".join(wrong))
        return tuple(values[name] for name in self.classes or self.columns if name in values)

    def _number(self, cell: str, line: int) -> float:
        written = with_point(line, cell) if self.options.decimal_comma else cell
        if not is_number(written):
            hint = ": add --decimal-comma" if DECIMAL_COMMA.fullmatch(cell) else ""
            raise ValueError(f"{cell!r} is not a number{hint}")
        if abs(float(written)) > MOST:
            raise ValueError(f"{cell!r} is larger than {MOST:g}: use a larger unit")
        return float(written)

    def _decide(self, option: str, place: str, dropped: set[str]) -> str | None:
        """The user's decision about a cell. Without one, the cell is a mistake."""
        choice: str | None = getattr(self.options, option.removeprefix("--"))
        if choice is None:
            self._undecided.setdefault(option, []).append(place)
        if choice == DROP:
            dropped.add(option)
        return choice


def _flag(cell: str) -> float | None:
    """1, 0 or -1; 0 for an empty cell; None for another text."""
    if cell.casefold() in MISSING:
        return ABSENT
    value = float(cell) if is_number(cell) else FLAGS.get(cell.casefold())
    return value if value in (PRESENT, ABSENT, UNCERTAIN) else None


def _named(given: str | None) -> list[str]:
    return [name.strip() for name in given.split(",")] if given else []
