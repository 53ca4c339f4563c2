"""`fedmosaic complete`: generate the missing values of a shard with frozen models."""

import argparse
from pathlib import Path
from typing import Any

from deploy.commands.shared.device import add_device
from deploy.commands.shared.experiment import add_completing, experiment_of
from deploy.commands.shared.frozen import quiet_libraries
from deploy.commands.shared.given import readable, shards_there


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic complete`."""
    parser = commands.add_parser(
        "complete",
        help="generate the missing values of a shard with frozen models",
        epilog="example: fedmosaic complete shards/client-0 --with configs/birds-mini-fedmvp.yaml",
    )
    parser.add_argument("shards", type=Path, nargs="+", metavar="SHARD", help="a folder with training examples")
    add_completing(parser)
    add_device(parser, default="auto", what="of the frozen models")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    readable(options.config)
    shards_there(options.shards)
    quiet_libraries()
    from common.hardware.device import find_device
    from deploy.shards.complete import complete_shards

    complete_shards(experiment_of(options), options.shards, str(find_device(options.device)))
