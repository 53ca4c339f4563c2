"""Reads experiments in Python."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.config.experiment import Experiment
from common.config.reading import read
from common.errors import ConfigError

__all__ = ["Experiment", "load_experiment"]


def load_experiment(path: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Experiment:
    """The experiment of a YAML file with every default filled in. changes: values by dotted option, e.g. {"train.lr":
    0.1}, as with `--set`.

    Raises ConfigError with every mistake.
    """
    given = dict(changes or {})
    if odd := [key for key in given if not isinstance(key, str)]:
        raise ConfigError("changes", [f"{key!r} is not the name of an option" for key in odd])
    return read(Path(path), given)
