"""The folder of a run in Python: its figures as frames, its report and its model."""

import os
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.modality import subset_name
from common.words.figures import LEADING, title, value
from deploy.study.finished import read_known
from server.report import run as written
from server.report.page import interval, table, text, write_report

if TYPE_CHECKING:
    from pandas import DataFrame

    from common.trained.predictor import Predictor

ON = {"test": 0, "validation": 1}
"""By the examples of a measurement, the rounds from the model to the line with its figures: sites measure a model when
they receive it, one round after it was made."""


class Run:
    """The folder of a run. Every attribute reads the folder again, so that it is up to date while the run continues.

    A run can be given where a path is needed, e.g. to `load_model` or `Path`.
    """

    def __init__(self, folder: "str | os.PathLike[str]") -> None:
        """Raises ConfigError for a folder without a run, and for the run of a release with another format of files."""
        self.folder = Path(folder)
        self._read()

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @property
    def summary(self) -> dict[str, Any]:
        """The content of summary.json; empty while the run continues."""
        return dict(self._read().summary)

    @property
    def history(self) -> "DataFrame":
        """One row per round, kind of examples and subset of modalities, with a column per metric.

        round: the round that made the model; 0: the initial model. on: "test" for the server's test shard, "validation"
        for the sites' validation examples. The last model has no validation, because sites measure the models that they
        receive. examples: the number of examples. NaN: not defined, or not known.
        """
        rows = [
            {"round": written.round_of(line) - late, "on": on, "subset": subset, **_metrics(figures)}
            for line in self._read().rounds
            for on, late in ON.items()
            for subset, figures in written.mapping(line.get(on)).items()
        ]
        frame = _frame(rows, ["round", "on", "subset", "examples"])
        return frame.sort_values("round", kind="stable", ignore_index=True)

    @property
    def losses(self) -> "DataFrame":
        """One row per round, with a column per term of the loss: its mean over the sites."""
        rows = [{"round": written.round_of(line), **_known(line.get("losses"))} for line in self._read().trained]
        return _frame(rows, ["round"])

    @property
    def sites(self) -> "DataFrame":
        """One row per round and site.

        modalities: those that the site trained. num_examples: its number of examples. bytes_up, bytes_down: what it
        sent and received. losses.TERM: the mean of a term of its loss. seconds.STEP: the seconds of a step at the site.
        failed: the reason why its update was not used, or "". NaN: not known, e.g. because of the site's policy.
        """
        rows = [
            {"round": written.round_of(line), "site": site, **_site(line, site)}
            for line in self._read().trained
            for site in sorted(written.mapping(line.get("clients")).keys() | written.mapping(line.get("failed")).keys())
        ]
        return _frame(rows, ["round", "site"])

    @property
    def figures(self) -> "DataFrame":
        """The figures after the last round, by subset of modalities, with a column per metric.

        METRIC_low, METRIC_high: the 95 % bootstrap interval over the test examples, where the run has one.
        """
        read = self._read()
        intervals = written.mapping(read.summary.get("intervals"))
        rows = [{"subset": name, **_with_intervals(figures, written.mapping(intervals.get(name)))}
                for name, figures in _final(read)]  # fmt: skip
        return _frame(rows, ["subset", "examples"]).set_index("subset")

    def model(self, which: Literal["best", "last"] | None = None, device: str = "cpu") -> "Predictor":
        """The trained model on a device. which: see `load_model`.

        Raises ModelError, e.g. before the first round.
        """
        from common.trained.predictor import load_model

        return load_model(self.folder, device, which)

    def report(self) -> Path:
        """The file report.html. It is written if it is absent, or if the run has not finished.

        Raises OSError when it cannot be written.
        """
        found = self.folder / "report.html"
        return found if found.is_file() and self._read().summary else write_report(self.folder)

    def _repr_html_(self) -> str:
        """The final figures as a table for a notebook."""
        read = self._read()
        keys, rows = LEADING[read.task], []
        for name, figures in _final(read):
            bounds = interval(read, name, keys[0])
            first = value(keys[0], figures.get(keys[0])) + (f" ({bounds})" if bounds else "")
            rows.append([text(name), first, *(value(key, figures.get(key)) for key in keys[1:])])
        head = ["modalities", *(text(title(key)) for key in keys)]
        status = "running" if read.live else read.summary.get("status") or "unfinished"
        done = f"{status} after {len(read.trained)} rounds, measured on {read.measured_on} examples"
        about = f"<b>{text(self.folder.name)}</b>: {text(read.about['method'])}, {text(done)}"
        return f"<p>{about}</p>{table(head, rows, range(1, len(head)))}"

    def _read(self) -> written.Run:
        return read_known("fedmosaic.Run", self.folder)


def _final(read: written.Run) -> list[tuple[str, Mapping[str, Any]]]:
    """The final figures by subset, from the summary or else from the last evaluation."""
    told = written.mapping(read.summary.get("figures")) or read.final
    return [(name, written.mapping(told[name])) for name in read.subsets if name in told]


def _metrics(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The metrics and the number of examples: the entries that are not lists or mappings."""
    return {key: nan if found is None else found
            for key, found in figures.items() if not isinstance(found, list | dict)}  # fmt: skip


def _with_intervals(figures: Mapping[str, Any], intervals: Mapping[str, Any]) -> dict[str, Any]:
    known = dict[str, Any]()
    for key, found in _metrics(figures).items():
        known[key] = found
        if key in intervals:
            known[f"{key}_low"], known[f"{key}_high"] = intervals[key]
    return known


def _site(line: Mapping[str, Any], site: str) -> dict[str, Any]:
    told = written.mapping(written.mapping(line.get("clients")).get(site))
    return {
        "modalities": subset_name(told.get("modalities", ())),
        **{key: told.get(key, nan) for key in ("num_examples", "bytes_up", "bytes_down")},
        **{f"losses.{term}": found for term, found in _known(told.get("losses")).items()},
        **{f"seconds.{step}": found for step, found in _known(told.get("seconds")).items()},
        "failed": written.mapping(line.get("failed")).get(site, ""),
    }


def _known(figures: Any) -> dict[str, float]:
    return {key: nan if found is None else found for key, found in written.mapping(figures).items()}


def _frame(rows: Sequence[Mapping[str, Any]], first: Sequence[str]) -> "DataFrame":
    """A frame with one row per mapping. first: the first columns, which exist also without rows."""
    from pandas import DataFrame

    others = dict.fromkeys(key for row in rows for key in row if key not in first)
    return DataFrame(rows, columns=[*first, *others])
