"""`fedmosaic init`: an experiment to start from, and shards to try it with."""

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.files import is_free, whole_folder
from deploy.commands.shared.given import shards_there

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

NEXT_FITTED = """\
That is {folder}/experiment.yaml. See whether every value can be used, and train:
  fedmosaic inspect {shards}/client-0 --with {folder}/experiment.yaml
  fedmosaic run {folder}/experiment.yaml --shards {shards} --engine inprocess"""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic init`."""
    parser = commands.add_parser(
        "init",
        help="write an experiment to start from, and example shards",
        description="Write an experiment file with every option explained, and small shards of three modalities to "
        "try it with. Or one that fits shards of your own: their modalities, sizes, lengths and rates.",
        epilog="example: fedmosaic init my-experiment     fedmosaic init birds --shards shards/birds",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--shards", type=Path, metavar="SHARDS", help="write an experiment that fits these shards: a folder of shards"
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    shards_there([options.shards])
    if not is_free(options.folder):
        raise ConfigError("init", [f"{options.folder} exists and is not empty: choose another folder"])
    try:
        with whole_folder(options.folder) as unfinished:
            said = _fit(unfinished, options) if options.shards else _start(unfinished, options)
    except OSError as error:
        raise ConfigError("init", [f"{options.folder} cannot be written: {error.strerror}"]) from None
    print(said)


def _start(folder: Path, options: argparse.Namespace) -> str:
    """Every option with its default, and shards to try it with; what can be done next."""
    from deploy.progress import working
    from deploy.shards.example_shards import write_example_shards

    shutil.copyfile(STARTING, folder / EXPERIMENT)
    with working("writing example shards"):
        write_example_shards(folder / EXAMPLE)
    return NEXT.format(folder=options.folder)


def _fit(folder: Path, options: argparse.Namespace) -> str:
    """An experiment for the user's own shards; what can be done next."""
    from common.config.experiment import read
    from deploy.shards.fitting import find_shards, fitted

    name = re.sub(r"[^a-z0-9-]+", "-", options.folder.resolve().name.lower()).strip("-") or "experiment"
    text = fitted(find_shards(options.shards), name, options.shards)
    (folder / EXPERIMENT).write_text(text, encoding="utf-8")
    read(folder / EXPERIMENT)
    return f"{text}\n{NEXT_FITTED.format(folder=options.folder, shards=options.shards)}"
