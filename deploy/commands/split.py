"""`fedmosaic split`: hold out a share of the sites' examples as a test shard."""

import argparse
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from deploy.commands.shared.given import shards_there


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic split`."""
    parser = commands.add_parser(
        "split",
        help="hold out examples of your own shards as a test shard, for a benchmark on one machine",
        description="Copy a folder of shards, and put a share of the examples of every site and class into a test "
        "shard. The shards themselves stay as they are. Examples are chosen one by one: when several examples belong "
        "to one person, import the test persons' files as a shard `test` instead.",
        epilog="example: fedmosaic split shards --test 0.2 --out divided",
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="a folder with one shard per site")
    parser.add_argument(
        "--test", type=float, default=0.2, metavar="SHARE", help="share of the examples to hold out (default: 0.2)"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="chooses the examples (default: 1)")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the shards and test")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    shards_there([options.shards])
    mistakes = [] if 0 < options.test < 1 else [f"--test is {options.test:g}: it must be between 0 and 1"]
    if (options.shards / "test").exists():
        mistakes.append(f"{options.shards / 'test'} exists: there is a test shard already")
    if (options.shards / "shard.json").exists():
        mistakes.append(f"{options.shards} is one shard: name the folder that contains the shards of all sites")
    if mistakes:
        raise ConfigError("split", mistakes)
    from deploy.shards.fitting import find_shards
    from deploy.shards.held_out import hold_out

    parts = hold_out(find_shards(options.shards), options.test, options.seed, options.out)
    for part in parts:
        print(f"{options.out / part.shard.folder.name}: {len(part.kept)} examples, {len(part.held)} more in test")
    print(f"{options.out / 'test'}: {sum(len(part.held) for part in parts)} examples")
