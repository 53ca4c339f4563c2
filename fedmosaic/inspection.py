"""Looks into a shard in Python, with the same result as `fedmosaic inspect`."""

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from common.data.shard import Shard
from common.errors import ConfigError
from common.tasks.find import task_of
from deploy.shards.inspection.attention import attention, refusal
from deploy.shards.inspection.encoders import encoders_of
from deploy.shards.inspection.survey import Survey, sampled, survey
from fedmosaic.experiments import Experiment
from server.report.page import text

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Inspection:
    """The content of a shard: counts and findings, without the values themselves. Broken files count as missing.

    refused: the reason why a run of the given experiment would refuse the site, or None.
    """

    survey: Survey
    refused: str | None = None

    @property
    def site(self) -> str:
        """The site's name."""
        return self.survey.shard.info.site

    @property
    def examples(self) -> int:
        """The number of examples."""
        return len(self.survey.shard.records)

    @property
    def concerns(self) -> list[str]:
        """Possible problems in the data, as sentences."""
        return attention(self.survey)

    @property
    def modalities(self) -> "DataFrame":
        """By modality, figures of the readable values.

        values, broken: the numbers of readable and of other values. constant: those that are silent, blank or constant.
        form: the most frequent form. unit: the unit of the lengths shortest, median and longest. lowest, highest: the
        range of the numbers in the values; NaN for texts.
        """
        rows = {name: self._modality(name) for name in self.survey.modalities}
        columns = ["values", "broken", "constant", "form", "unit", "shortest", "median", "longest", "lowest", "highest"]
        return _by(rows, columns, "modality")

    @property
    def classes(self) -> "DataFrame":
        """By class or label, the number of examples, and of readable values of each modality. A regression has no
        classes: the rows are its targets."""
        return _by(self.to_json()["classes"], ["examples", *self.survey.modalities], "class")

    @property
    def patterns(self) -> "DataFrame":
        """By the modalities that an example has, the number and the share of examples."""
        told = self.to_json()["patterns"]
        rows = {name: {"examples": count, "share": count / self.examples} for name, count in told.items()}
        return _by(rows, ["examples", "share"], "modalities")

    @property
    def columns(self) -> "DataFrame":
        """The columns of tables: modality, column, type, missing (the share of rows without the cell), distribution."""
        from pandas import DataFrame

        names = ["modality", "column", "type", "missing", "distribution"]
        rows = [(modality, name, seen.kind, seen.missing, seen.distribution)
                for modality, table in self.survey.tables.items() for name, seen in table.columns.items()]  # fmt: skip
        return DataFrame(rows, columns=names)

    @property
    def broken(self) -> "DataFrame":
        """One row per file that cannot be read: id, modality, file, reason."""
        from pandas import DataFrame

        return DataFrame([vars(one) for one in self.survey.broken], columns=["id", "modality", "file", "reason"])

    def to_json(self) -> dict[str, Any]:
        """The JSON values of `fedmosaic inspect --json`."""
        return self.survey.to_json() | {"attention": self.concerns, "refused": self.refused}

    def __repr__(self) -> str:
        return f"Inspection(site={self.site!r}, examples={self.examples})"

    def _repr_html_(self) -> str:
        """The tables for a notebook."""
        refused = [f"A run would refuse this site: {self.refused}"] if self.refused else []
        said = "".join(f"<li>{text(line)}</li>" for line in [*refused, *self.concerns])
        tables = "".join(
            frame.to_html(na_rep="", float_format="{:.4g}".format)
            for frame in (self.modalities, self.classes, self.patterns, self.columns)
            if len(frame)
        )
        return f"<p><b>{text(self.site)}</b>: {self.examples:,} examples</p>{tables}<ul>{said}</ul>"

    def _modality(self, name: str) -> dict[str, Any]:
        seen = self.survey.modalities[name]
        told, found = seen.to_json(), seen.finder.found()
        middle = median(seen.lengths) if seen.lengths else None
        return {**told, "broken": found.unreadable, "form": seen.form, "median": middle}


def inspect(
    shard: Shard | str | os.PathLike[str],
    experiment: Experiment | None = None,
    test: Shard | str | os.PathLike[str] | None = None,
    sample: int | None = None,
) -> Inspection:
    """Read every value of a shard, as training does, and count. Nothing is written, and no value leaves the shard.

    experiment: also check whether its encoders accept every value, and whether a run would refuse the site. test: a
    shard that should not share files with this one. sample: read only this number of examples, chosen at random.

    Raises ShardError when a shard cannot be read.
    """
    if sample is not None and sample < 1:
        raise ConfigError("fedmosaic.inspect", ["sample: must be at least 1"])
    opened = _opened(shard, listed=None)
    opened = sampled(opened, sample) if sample else opened
    encoders = encoders_of(experiment, opened) if experiment else {}
    task = task_of(experiment.task, opened.info.classes) if experiment else None
    found = survey(opened, None, encoders, None if test is None else _opened(test), task)
    return Inspection(found, refusal(found, experiment.data.max_unreadable) if experiment else None)


def _opened(shard: Shard | str | os.PathLike[str], **options: Any) -> Shard:
    return shard if isinstance(shard, Shard) else Shard.open(Path(shard), labelled=False, **options)


def _by(rows: dict[str, dict[str, Any]], columns: list[str], index: str) -> "DataFrame":
    """A frame with one row per entry."""
    from pandas import DataFrame, Index

    return DataFrame([rows[name] for name in rows], columns=columns, index=Index(list(rows), name=index, dtype=object))
