"""`fedmosaic flwr`: Flower's own command line, for a SuperLink that requires the operator's token."""

import argparse
import os
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic flwr`."""
    parser = commands.add_parser(
        "flwr",
        help="run Flower's own command line with the operator's token",
        description="Run any command of `flwr`, such as ls, log, stop and supernode list, on a SuperLink that requires "
        "the operator's token. $FEDMOSAIC_OPERATOR_TOKEN is the path of the token's file.",
        epilog="example: fedmosaic flwr ls",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="arguments of flwr")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy.hosts.start import become, environment

    become(
        [sys.executable, "-P", "-m", "deploy.hosts.control", "client", *options.arguments],
        {**os.environ, **environment([])},
    )
