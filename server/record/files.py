"""Writing to a run's folder, with an error that says what is saved and how to go on."""

import os
from pathlib import Path

from common import files
from common.errors import RunError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all; its folder is made.

    Raises RunError when that is not possible, e.g. because the disk is full; what was there before is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(path, data)
    except OSError as error:
        raise cannot_write(path, error) from None


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and force it to the disk.

    Raises RunError when that is not possible.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> RunError:
    """The error for a file that cannot be written, and what to do about it."""
    return RunError(
        f"{path} cannot be written: {error.strerror}. The rounds before are saved; go on with --resume once it can be"
    )
