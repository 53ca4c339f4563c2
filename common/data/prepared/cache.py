"""The folder `cache` of a shard, which keeps the prepared values of columns between runs.

The name of a file is a hash of everything that its content depends on: the encoder, with the weights and the
preprocessing of a frozen one, and the values of the column. When one of them changes, a new file is written. The
folder may be deleted at any time.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from common.data.limits import bytes_allowed
from common.data.prepared import cached_file
from common.data.prepared.column import Column
from common.data.shard import Shard, part
from common.errors import ShardError
from common.files import UNFINISHED
from common.media.values import Value
from common.modality import Modality

log = logging.getLogger(__name__)
CACHE = "cache"
GIGABYTES_VARIABLE, GIGABYTES = "FEDMOSAIC_CACHE_GB", 10.0
"""The maximum size of a shard's folder `cache`; 0 switches the cache off. There is a limit because a server chooses the
encoders and may change them often."""
LEFT_FREE = 1 << 30
"""Bytes of the disk that stay free."""


class NoRoomError(ShardError):
    """A file does not fit into the folder or on the disk."""


def is_on() -> bool:
    """Whether the limit allows any file.

    Raises ShardError when the limit is not a number.
    """
    return bytes_allowed(GIGABYTES_VARIABLE, GIGABYTES) > 0


def place(shard: Shard, modality: Modality, described: str, values: Sequence[Value | None]) -> Path:
    """The path of a column's file. described: everything about the encoder on which the values depend.

    Raises ShardError when the folder is a link that leads out of the shard.
    """
    folder = part(shard.folder, CACHE)
    digest = hashlib.sha256(described.encode())
    for value in values:
        digest.update(json.dumps(None if value is None else value.stamp(shard.folder)).encode() + b"\n")
    return folder / f"{modality}-{digest.hexdigest()[:16]}.safetensors"


def kept(path: Path) -> Column | None:
    """The column of a file, which is marked as used now. None: there is no file, or it is damaged."""
    if not path.exists():
        return None
    try:
        column = cached_file.read(path)
    except cached_file.UNREADABLE as error:
        log.warning("%s cannot be read, its values are prepared again: %s", path, error)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return column


def make_room(path: Path, size: int) -> None:
    """Delete the least recently used files until a new file of `size` bytes fits within the limit.

    Raises NoRoomError when it cannot fit within the limit or on the disk. Nothing is deleted then.
    """
    most = bytes_allowed(GIGABYTES_VARIABLE, GIGABYTES)
    needed = f"{size / 1e9:.3g} GB are needed"
    if size > most:
        raise NoRoomError(f"{needed}, {GIGABYTES_VARIABLE} allows {most / 1e9:g} GB")
    removed = _oldest(path.parent, most - size)
    free = _free(path.parent) + sum(file.stat().st_size for file in removed)
    if size + LEFT_FREE > free:
        raise NoRoomError(f"{needed}, and {LEFT_FREE / 1e9:.3g} GB must stay free; the disk has {free / 1e9:.3g} GB")
    for oldest in removed:
        log.warning("%s is removed: %s allows %g GB", oldest, GIGABYTES_VARIABLE, most / 1e9)
        oldest.unlink(missing_ok=True)


def _oldest(folder: Path, left: int) -> list[Path]:
    """The least recently used files, and those of killed processes, without which the folder takes at most `left`
    bytes."""
    found = []
    for file in folder.glob("*"):
        with contextlib.suppress(OSError):  # another process has removed it
            found.append((file.stat(), file))
    found.sort(key=lambda one: one[0].st_mtime)
    total, oldest = sum(about.st_size for about, _ in found), []
    for about, file in found:
        abandoned = file.suffix == UNFINISHED and not cached_file.is_written(file)
        if abandoned or (total > left and file.suffix != UNFINISHED):
            oldest.append(file)
            total -= about.st_size
    return oldest


def _free(folder: Path) -> int:
    """Free bytes of the disk; 0 if they are unknown."""
    try:
        return shutil.disk_usage(folder if folder.exists() else folder.parent).free
    except OSError:
        return 0
