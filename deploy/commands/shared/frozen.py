"""What the commands that use frozen models share."""

import argparse
import logging
import os


def add_device(parser: argparse.ArgumentParser) -> None:
    """--device."""
    parser.add_argument("--device", metavar="NAME", help="e.g. cpu or cuda (default: a GPU where there is one)")


def quiet_libraries() -> None:
    """Leave out what transformers, diffusers and open_clip log about their own workings."""
    logging.basicConfig(level=logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
