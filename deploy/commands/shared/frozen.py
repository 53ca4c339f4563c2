"""Parts that the commands with frozen models share."""

import argparse
import logging
import os


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", metavar="NAME", help="e.g. cpu or cuda (default: a GPU if there is one)")


def quiet_libraries() -> None:
    """Hide the log lines of transformers, diffusers and open_clip below the level ERROR."""
    logging.basicConfig(level=logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
