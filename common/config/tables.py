"""The columns of tables in an experiment. An experiment may leave them to the sites, and gets them before round 1."""

import json
from collections.abc import Mapping
from typing import Any

from common.config.component import build
from common.config.experiment import Experiment
from common.config.reading import parse
from common.modality import Modality


def without_columns(experiment: Experiment) -> list[Modality]:
    """The modalities whose encoder reads tables and has no columns yet."""
    return [m for m in experiment.modalities if build("encoder", experiment.model.encoders[m]).lacks_columns]


def with_columns(experiment: Experiment, columns: Mapping[Modality, Mapping[str, Any]]) -> Experiment:
    """The experiment with the columns of these modalities, as JSON values.

    Raises ConfigError when a column is not valid.
    """
    raw = json.loads(experiment.to_json())
    for modality, own in columns.items():
        raw["model"]["encoders"][modality]["columns"] = dict(own)
    return parse(raw, "agreed columns")


def with_columns_of(experiment: Experiment, earlier: Mapping[str, Any]) -> Experiment:
    """The experiment with the agreed columns of an earlier one, which is given as JSON values, where it has none."""
    before = earlier["model"]["encoders"]
    lacking = [m for m in without_columns(experiment) if before.get(m, {}).get("columns")]
    return with_columns(experiment, {m: before[m]["columns"] for m in lacking}) if lacking else experiment
