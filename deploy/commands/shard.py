"""`fedmosaic shard`: divide a data set among clients."""

import argparse
from pathlib import Path
from typing import Any

from deploy.commands.shared.experiment import add_config, experiment_of
from deploy.commands.shared.given import readable


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic shard`."""
    parser = commands.add_parser(
        "shard",
        help="divide a data set into one shard per client and a test shard",
        epilog="example: fedmosaic shard configs/digits-mini-fedcmi.yaml --out shards/digits",
    )
    add_config(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the shards")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    readable(options.config)
    from common.split.make import make_shards

    folders = make_shards(experiment_of(options), options.out, lambda name: print(f"writing {options.out / name}"))
    print(f"{options.out}: {len(folders)} client shards and a test shard")
