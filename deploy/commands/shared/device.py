"""The option --device of the commands that compute."""

import argparse


def add_device(parser: argparse._ActionsContainer, default: str = "cpu", what: str = "") -> None:
    """Add --device. what: what is computed on the device, for the help."""
    parser.add_argument(
        "--device",
        default=default,
        metavar="DEVICE",
        help=f"device{f' {what}' if what else ''}: auto (a free GPU, else the processor), cpu, cuda, cuda:N or mps "
        f"(default: {default})",
    )
