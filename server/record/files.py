"""Writing to a run folder. The error message names the saved rounds and the way to continue."""

import os
from pathlib import Path

from common import files
from common.errors import RunError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file completely or not at all, and make its folder.

    Raises RunError when this fails, e.g. because the disk is full. The earlier file then remains unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, data)
    except OSError as error:
        raise cannot_write(path, error) from None


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and force it to the disk.

    Raises RunError when this fails.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written, with advice."""
    return RunError(
        f"{path} cannot be written: {error.strerror}. The earlier rounds are saved: remove the cause, then continue "
        "with --resume"
    )
