"""`fedmosaic pretrain`: train the small frozen models of the project from scratch."""

import argparse
from pathlib import Path
from typing import Any

from deploy.commands.shared.frozen import quiet_libraries


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic pretrain`."""
    parser = commands.add_parser(
        "pretrain",
        help="train the small frozen models of the project from scratch",
        epilog="example: fedmosaic pretrain birds-coca --out weights/birds-coca",
    )
    parser.add_argument("model", choices=["birds-coca", "birds-diffusion", "birds-vit"])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--seed", type=int, default=7, metavar="N", help="seed of the weights and the corpus (default: 7)"
    )
    parser.add_argument(
        "--effort",
        type=float,
        default=1.0,
        metavar="X",
        help="share of the usual number of training steps (default: 1)",
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    quiet_libraries()
    from deploy.pretrain.command import pretrain

    pretrain(options.model, options.out, options.seed, options.effort)
