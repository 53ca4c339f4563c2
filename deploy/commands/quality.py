"""`fedmosaic quality`: measure the quality of generated values."""

import argparse
from pathlib import Path
from typing import Any

from deploy.commands.shared.experiment import add_completing, experiment_of
from deploy.commands.shared.frozen import quiet_libraries
from deploy.commands.shared.given import readable, shards_there


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic quality`."""
    parser = commands.add_parser(
        "quality",
        help="compare generated values with real values, on a machine that has all shards",
        epilog="example: fedmosaic quality shards/birds-mini-fedmvp --with configs/birds-mini-fedmvp.yaml",
    )
    parser.add_argument("shards", type=Path, metavar="DIR", help="the folder with the clients' shards and test")
    parser.add_argument(
        "--scorer",
        default="birds-coca",
        metavar="NAME",
        help="the CLIP or CoCa model that compares values (default: birds-coca)",
    )
    add_completing(parser)
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    readable(options.config)
    shards_there([options.shards])
    quiet_libraries()
    from deploy.progress import working
    from deploy.shards import quality

    experiment = experiment_of(options)
    with working("comparing generated values with real values"):
        found = quality.measure(experiment, options.shards, options.scorer)
    quality.show(found)
