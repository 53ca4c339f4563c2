"""`fedmosaic flwr`: Flower's own command line, for a SuperLink that asks for the operator's token."""

import argparse
import os
import sys
from typing import Any


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic flwr`."""
    parser = commands.add_parser(
        "flwr",
        help="Flower's own command line, with the operator's token",
        description="Everything of `flwr`, such as ls, log, stop and supernode list, at a SuperLink that asks for the "
        "operator's token: the file that $FEDMOSAIC_OPERATOR_TOKEN names.",
        epilog="example: fedmosaic flwr ls",
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help="of flwr")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    from deploy.hosts.start import become, environment

    become(
        [sys.executable, "-P", "-m", "deploy.hosts.control", "client", *options.arguments],
        {**os.environ, **environment([])},
    )
