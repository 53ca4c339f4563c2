"""The option --model of the commands that use the model of a run."""

import argparse


def add_model(parser: argparse._ActionsContainer) -> None:
    """Add --model."""
    parser.add_argument(
        "--model",
        choices=("best", "last"),
        help="the model of a run: the best one (federation.keep.best) or the last one (default: the best one if the "
        "run keeps it, else the last one)",
    )
