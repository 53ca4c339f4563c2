"""`fedmosaic init`: an experiment to start from, and shards to try it with."""

import argparse
import shutil
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.files import is_free, whole_folder

STARTING = Path(__file__).with_name("starting_experiment.yaml")
EXPERIMENT, EXAMPLE = "experiment.yaml", "example"
NEXT = """\
{folder}/experiment.yaml  an experiment, every option explained
{folder}/example/         shards of three sites and a test shard

See what a shard is, and train on them:
  fedmosaic inspect {folder}/example/client-0 --out client-0.html
  fedmosaic run {folder}/experiment.yaml --shards {folder}/example --engine processes

Then your own files, a shard for each site, and one called test if the server may have one:
  fedmosaic import image=pictures audio=sounds text=notes --labels labels.csv --out {folder}/shards/client-0
and in experiment.yaml the number of sites, the modalities and what `fedmosaic inspect` says of their lengths:
  fedmosaic run {folder}/experiment.yaml --shards {folder}/shards --engine processes"""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic init`."""
    parser = commands.add_parser(
        "init",
        help="write an experiment to start from, and example shards",
        description="Write an experiment file with every option explained, and small shards of three modalities to "
        "try it with.",
        epilog="example: fedmosaic init my-experiment",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    write(options.folder)
    print(NEXT.format(folder=options.folder))


def write(folder: Path) -> None:
    """Write the experiment and the shards; the folder appears whole or not at all.

    Raises ConfigError when it exists and is not empty, or cannot be written.
    """
    from deploy.example_shards import write_example_shards
    from deploy.progress import working

    if not is_free(folder):
        raise ConfigError("init", [f"{folder} exists and is not empty: choose another folder"])
    try:
        with whole_folder(folder) as unfinished:
            shutil.copyfile(STARTING, unfinished / EXPERIMENT)
            with working("writing example shards"):
                write_example_shards(unfinished / EXAMPLE)
    except OSError as error:
        raise ConfigError("init", [f"{folder} cannot be written: {error.strerror}"]) from None
