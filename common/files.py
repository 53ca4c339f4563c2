"""Files and folders that are written completely or not at all, also when the machine crashes. Only their owner may read
them."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".partial"
"""The name of a subfolder, or the end of a name, for files that are not finished."""
LEFTOVERS = {UNFINISHED, "lost+found"}
PRIVATE = 0o077
"""The umask that makes files 0600 and folders 0700, because shards, features, models and figures reveal examples."""


def keep_private() -> None:
    """Make the files that this process and its child processes write from now on readable for their user only."""
    os.umask(PRIVATE)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under a temporary name, force it to the disk, and rename it. Only the owner may read it.

    Raises OSError when that is not possible, e.g. because the disk is full. A previous file then stays unchanged.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(partial, "wb", opener=_private) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync(path.parent)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def is_free(folder: Path) -> bool:
    """Whether `whole_folder` may write the folder: it does not exist, or it contains only files of an interrupted
    command or of a new file system.

    Raises OSError when the folder cannot be listed.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name in LEFTOVERS for path in folder.iterdir())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to. At the end its content is in `folder`; after an error it is deleted.

    A new folder appears at once, by a rename. An existing folder may be a mounted volume. No folder can be written next
    to it or renamed to its name. There, the content is made in a subfolder and moved up at the end, in the order in
    which it was written.

    Raises OSError when that is not possible.
    """
    out = folder.resolve()
    there = out.is_dir()
    unfinished = out / UNFINISHED if there else out.with_name(f".{out.name}{UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        if there:
            _move_up(unfinished)
        else:
            unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move_up(folder: Path) -> None:
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        path.rename(folder.parent / path.name)


def _sync(folder: Path) -> None:
    """Force a folder's entries to the disk, because a power failure can undo a rename."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
