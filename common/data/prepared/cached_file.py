"""The file of a column: a safetensors file that is written value by value, in any order and by several processes.

    header    a fixed number of bytes; contains the findings
    index     see `Column.index`
    values    [n, ...], one per value of the column; zeros for unreadable values

A file is never changed, only replaced. It is mapped into memory: only the values that a batch needs are read, and the
processes on a machine share the memory.
"""

import contextlib
import fcntl
import json
import math
import os
import struct
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from common.data.prepared.column import Column
from common.data.prepared.mapped import Mapped
from common.files import UNFINISHED
from common.findings import Findings

HEADER = 16_384
"""Bytes of the header, enough for the longest findings."""
LENGTH = struct.Struct("<Q")
UNREADABLE = (OSError, SafetensorError, KeyError, ValueError, RuntimeError)
"""Exceptions from reading a damaged file."""


@dataclass(frozen=True)
class Layout:
    """The sizes of a file: the number of rows of the shard, the number of values, and their form."""

    rows: int
    count: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def item(self) -> int:
        """Bytes per value."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def start(self) -> int:
        """The place of the first value in the file, in bytes."""
        return HEADER + 8 * self.rows

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.start + self.count * self.item

    def header(self, findings: Findings) -> bytes:
        """The header, filled up with spaces."""
        end = 8 * self.rows
        content = {
            "__metadata__": {"findings": findings.model_dump_json()},
            "index": {"dtype": "I64", "shape": [self.rows], "data_offsets": [0, end]},
            "values": {
                "dtype": _name(self.dtype),
                "shape": [self.count, *self.shape],
                "data_offsets": [end, end + self.count * self.item],
            },
        }
        text = json.dumps(content, ensure_ascii=False).encode().ljust(HEADER - LENGTH.size)
        return LENGTH.pack(len(text)) + text


def _name(dtype: torch.dtype) -> str:
    """The name of a type in safetensors files."""
    content = save({"one": torch.zeros(1, dtype=dtype)})
    (length,) = LENGTH.unpack_from(content)
    return str(json.loads(content[LENGTH.size : LENGTH.size + length])["one"]["dtype"])


@dataclass(frozen=True)
class Slots:
    """The places of the values in an unfinished file. Several processes may write to different places."""

    path: Path
    start: int
    item: int

    def write(self, contents: Mapping[int, NDArray[np.uint8]]) -> None:
        """Write the bytes of values by place.

        Raises OSError.
        """
        with self.path.open("r+b") as file:
            for place, content in contents.items():
                file.seek(self.start + place * self.item)
                file.write(content.data)


class Unfinished:
    """A file that is being written."""

    def __init__(self, file: BinaryIO, path: Path, layout: Layout) -> None:
        self._file, self._layout = file, layout
        self.slots = Slots(path, layout.start, layout.item)

    def finish(self, index: Tensor, findings: Findings) -> None:
        """Write the rest of the file, and force all to the disk.

        Raises OSError.
        """
        self._file.seek(0)
        self._file.write(self._layout.header(findings))
        self._file.write(index.numpy().tobytes())
        self._file.flush()
        self._file.truncate(self._layout.size)
        os.fsync(self._file.fileno())


@contextmanager
def unfinished(path: Path, layout: Layout) -> Iterator[Unfinished]:
    """A file under a temporary name, which gets its name at the end; after an error it is deleted. It is locked, so
    that other processes can distinguish it from the file of a process that was killed.

    Raises OSError.
    """
    partial = path.with_suffix(f".{uuid.uuid4().hex[:8]}{UNFINISHED}")
    path.parent.mkdir(exist_ok=True)
    try:
        with partial.open("xb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield Unfinished(file, partial, layout)
            os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def is_written(partial: Path) -> bool:
    """Whether a process still writes an unfinished file."""
    try:
        with partial.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def read(path: Path) -> Column:
    """The column of a file, mapped into memory.

    Raises one of UNREADABLE for a damaged file.
    """
    with safe_open(path, framework="pt") as file:
        findings = Findings.model_validate_json((file.metadata() or {}).get("findings", ""))
        index, values = file.get_tensor("index").clone(), file.get_slice("values")
        count, like = values.get_shape()[0], values[0:0]
    start = Layout(len(index), count, tuple(like.shape[1:]), like.dtype).start
    return Column(index, Mapped(path, start, count, like), findings)
