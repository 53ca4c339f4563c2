"""Files that are there whole or not at all, also after a crash of the machine."""

import contextlib
import os
from pathlib import Path

from common.errors import RunError


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, force it to the disk, and give it its name.

    Raises RunError when that is not possible, e.g. because the disk is full; what was there before is untouched.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
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


def _sync(folder: Path) -> None:
    """Force a folder's entries to the disk: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
