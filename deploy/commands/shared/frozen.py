"""Parts that the commands with frozen models share."""

import logging
import os


def quiet_libraries() -> None:
    """Hide the log lines of transformers, diffusers and open_clip below the level ERROR."""
    logging.basicConfig(level=logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
