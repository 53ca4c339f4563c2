"""Files that are there whole or not at all, also after a crash of the machine, and that are their owner's alone."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".partial"
"""The folder inside of another one, or the end of a name, of what is not finished."""
LEFTOVERS = {UNFINISHED, "lost+found"}
PRIVATE = 0o077
"""What a umask takes away, so that files are 0600 and folders 0700: shards, features, models and figures tell of
examples."""


def keep_private() -> None:
    """From now on, what this process and those that it starts write is for their user alone."""
    os.umask(PRIVATE)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file under another name, force it to the disk, and give it its name; it is its owner's alone.

    Raises OSError when that is not possible, e.g. because the disk is full; what was there before is untouched.
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
    """Whether `whole_folder` may write a folder: it is not there, or holds nothing but what an interrupted command or a
    new file system left.

    Raises OSError when it cannot be looked at.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name in LEFTOVERS for path in folder.iterdir())


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to, whose content is in `folder` at the end, and gone with an error.

    A folder that is not there yet appears at once. One that is there may be a mounted volume, beside which nothing can
    be written and over which nothing can be renamed: its content is made inside, and moved up at the end, what was
    written last coming last.

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
    """Force a folder's entries to the disk: a rename alone may be lost with the power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
