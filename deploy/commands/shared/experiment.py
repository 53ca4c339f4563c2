"""The options CONFIG, --with and --set, and the experiment that they describe."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from common.errors import ConfigError

if TYPE_CHECKING:
    from common.config.experiment import Experiment


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add CONFIG and --set."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="an experiment file, e.g. from configs/")
    add_overrides(parser)


def add_completing(parser: argparse.ArgumentParser) -> None:
    """Add --with CONFIG and --set."""
    parser.add_argument(
        "--with",
        type=Path,
        required=True,
        metavar="CONFIG",
        dest="config",
        help="an experiment file; its section completion names the models",
    )
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add --set."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="change an option, e.g. --set train.lr=0.1 (repeatable)",
    )


def experiment_of(options: argparse.Namespace) -> "Experiment":
    """The experiment of CONFIG with the changes of --set, with every default filled in.

    Raises ConfigError.
    """
    from common.config.reading import read

    return read(options.config, overrides(options))


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The values of --set, by dotted name of the option.

    Raises ConfigError.
    """
    changes: dict[str, Any] = {}
    for text in options.overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError("--set", [f"{text!r} is not KEY=VALUE"])
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            changes[key] = value
    return changes
