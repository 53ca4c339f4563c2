"""Compares finished runs in Python, with the same result as `fedmosaic compare`."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.commands.shared.given import runs_there
from deploy.study.comparison import rows as compared
from deploy.study.comparison.page import write_page
from deploy.study.comparison.table import as_json, facts, heads, legend, shares
from fedmosaic.results import Run
from server.report.page import table, text

if TYPE_CHECKING:
    from pandas import DataFrame


class Comparison:
    """Runs in rows: those that differ only in the seed share one. The first row is the reference."""

    def __init__(self, found: compared.Comparison) -> None:
        self._found = found

    @property
    def runs(self) -> list[str]:
        """The folders' names of all runs, by row."""
        return [run.label for run in self._found.runs]

    @property
    def figures(self) -> "DataFrame":
        """One row per row of the comparison and measure, over the seeds of the finished runs.

        measure: METRIC:SUBSET for the main metric with these modalities, METRIC alone with all modalities, rounds,
        bytes, seconds. mean, deviation: over the seeds (n - 1). difference: the mean difference to the first row,
        paired by seed. low, high: its 95 % confidence interval (Student's t). pairs: the number of common seeds. NaN:
        the reference itself, or fewer than two pairs.
        """
        return _frame(
            [
                {"row": row["label"], "measure": name, "mean": one["mean"], "deviation": one["deviation"],
                 **_difference(one["difference"])}
                for row in self._rows() for name, one in row["measures"].items()
            ],
            ["row", "measure", "mean", "deviation", "difference", "low", "high", "pairs"],
        )  # fmt: skip

    @property
    def values(self) -> "DataFrame":
        """One row per row of the comparison, measure and seed, with the value of that run."""
        return _frame(
            [
                {"row": row["label"], "measure": name, "seed": seed, "value": found}
                for row in self._rows() for name, one in row["measures"].items()
                for seed, found in one["values"].items()
            ],
            ["row", "measure", "seed", "value"],
        )  # fmt: skip

    @property
    def settings(self) -> "DataFrame":
        """One row per row of the comparison, with a column per option that differs between rows."""
        rows = [{"row": row["label"], **row["settings"]} for row in self._rows()]
        return _frame(rows, list(dict.fromkeys(key for row in rows for key in row))).set_index("row")

    @property
    def notes(self) -> list[str]:
        """Warnings about differences that can mislead."""
        return self._found.notes()

    def page(self, path: str | os.PathLike[str]) -> Path:
        """Write the comparison with its curves as one HTML page to a file. Returns the file.

        Raises ConfigError when it cannot be written.
        """
        write_page(Path(path), self._found)
        return Path(path)

    def to_json(self) -> dict[str, Any]:
        """The JSON values of `fedmosaic compare --json`."""
        return as_json(self._found)

    def _repr_html_(self) -> str:
        """The table for a notebook."""
        head = ["runs", *map(text, heads(self._found))]
        rows = [["<br>".join(map(text, facts(row))),
                 *("<br>".join(map(text, filter(None, cell))) for cell in shares(self._found, row))]
                for row in self._found.rows]  # fmt: skip
        below = "<br>".join(map(text, [legend(self._found), *self.notes]))
        return f"{table(head, rows, range(1, len(head)))}<p>{below}</p>"

    def _rows(self) -> list[dict[str, Any]]:
        told = self.to_json()["rows"]
        return [{"label": row.label, **one} for row, one in zip(self._found.rows, told, strict=True)]


def compare(runs: Iterable[Run | str | os.PathLike[str]], by: Sequence[str] = ()) -> Comparison:
    """Compare runs, in their order. by: options or sections that separate rows, e.g. "method.name"; by default all
    options except the seed and the name.

    Raises ConfigError, with all folders concerned, for folders without a run, for runs of different tasks, and for an
    option that no run has.
    """
    folders = [Path(run) for run in runs]
    runs_there("fedmosaic.compare", folders)
    return Comparison(compared.compare(folders, by))


def _difference(found: dict[str, Any] | None) -> dict[str, Any]:
    return {"difference": found["mean"], **{key: found[key] for key in ("low", "high", "pairs")}} if found else {}


def _frame(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> "DataFrame":
    from pandas import DataFrame

    return DataFrame(rows, columns=list(columns))
