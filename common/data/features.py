"""The features that frozen encoders compute for a shard. They are computed once and kept in the shard's folder `cache`.

A file is mapped into memory, so only the values that a batch needs are read, no file is copied as a whole, and the
processes on a machine share the memory. A file is never changed, only replaced.

The name of a file is a hash of everything that its content depends on: the encoder with its weights and preprocessing,
and the values of the column. When one of them changes, a new file is written. The folder may be deleted at any time.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.data.column import Column
from common.data.finder import Finder
from common.data.limits import bytes_allowed
from common.data.shard import Shard, part
from common.encoders.base import FrozenEncoder
from common.findings import Findings
from common.media.values import Value
from common.modality import Modality

log = logging.getLogger(__name__)
CACHE = "cache"
CHUNK = 64
"""Number of values that are encoded together."""
GIGABYTES_VARIABLE, GIGABYTES = "FEDMOSAIC_CACHE_GB", 10.0
"""The maximum size of a shard's folder `cache`. There is a limit because a server chooses the encoders and may change
them often."""
LEFT_FREE = 1 << 30
"""Bytes of the disk that stay free."""


def frozen_column(shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]) -> Column:
    """Features [n, 1 + T, D], float16. Rows without a readable value are left out; unreadable values are logged.

    Raises ShardError when the folder `cache` is a link that leads out of the shard.
    """
    path = part(shard.folder, CACHE) / f"{modality}-{_key(shard, encoder, values)}.safetensors"
    kept = _read(path)
    if kept is None:
        kept = _compute(shard, modality, encoder, values)
        if _make_room(path, kept):
            _write(path, kept)
            kept = _read(path) or kept
    return kept


def _make_room(path: Path, kept: Column) -> bool:
    """Delete the least recently used files until the new file fits within the folder's limit.

    Returns whether the file fits, within the limit and on the disk. If it does not, the features are not kept and are
    computed again next time.
    """
    size, most = kept.values.nbytes, bytes_allowed(GIGABYTES_VARIABLE, GIGABYTES)
    try:
        free = shutil.disk_usage(path.parent if path.parent.exists() else path.parent.parent).free
    except OSError:
        return False
    if size > most or size + LEFT_FREE > free:
        log.warning("features are not kept: they take %d bytes, the limit is %d, %d are free", size, most, free)
        return False
    found = sorted(((one, one.stat()) for one in path.parent.glob("*")), key=lambda one: one[1].st_mtime)
    total = size + sum(about.st_size for _, about in found)
    for oldest, about in found:
        if total <= most:
            break
        log.warning("%s is removed: %s allows %g GB", oldest, GIGABYTES_VARIABLE, most / 1e9)
        oldest.unlink(missing_ok=True)
        total -= about.st_size
    return True


def _key(shard: Shard, encoder: FrozenEncoder, values: Sequence[Value | None]) -> str:
    described = [None if value is None else value.stamp(shard.folder) for value in values]
    return hashlib.sha256(json.dumps([encoder.described(), described]).encode()).hexdigest()[:16]


def _read(path: Path) -> Column | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            said = (file.metadata() or {}).get("findings", "")
        kept = load_file(path)  # maps the file; only its header is read here
        with contextlib.suppress(OSError):
            os.utime(path)  # marks the file as used now
        return Column(kept["rows"].tolist(), kept["features"], Findings.model_validate_json(said))
    except (OSError, SafetensorError, KeyError, ValidationError) as error:
        log.warning("%s cannot be read, its features are computed again: %s", path, error)
        return None


def _compute(shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]) -> Column:
    rows: list[int] = []
    parts: list[Tensor] = []
    finder = Finder(modality)
    for index, inputs in _chunks(shard, finder, encoder, values):
        rows += index
        parts.append(encoder.extract(torch.stack(inputs)).half())
    features = torch.cat(parts) if parts else encoder.blank().unsqueeze(0)[:0]
    return Column(rows, features.contiguous(), finder.found())


def _chunks(
    shard: Shard, finder: Finder, encoder: FrozenEncoder, values: Sequence[Value | None]
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Rows and inputs of the readable values, in chunks."""
    rows: list[int] = []
    inputs: list[Tensor] = []
    for row, value in enumerate(values):
        if value is None:
            continue
        if (tensor := finder.take(shard.records[row], value, encoder.tower.inputs)) is not None:
            inputs.append(tensor)
            rows.append(row)
        if len(rows) == CHUNK:
            yield rows, inputs
            rows, inputs = [], []
    if rows:
        yield rows, inputs


def _write(path: Path, kept: Column) -> None:
    """Write the file completely or not at all. Without write access to the shard, every process computes the features
    again."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        tensors = {"rows": torch.tensor(kept.rows, dtype=torch.int64), "features": kept.values}
        save_file(tensors, partial, {"findings": kept.findings.model_dump_json()})
        os.replace(partial, path)
    except OSError as error:
        log.warning("features are not kept, so they are computed again next time: %s", error)
        partial.unlink(missing_ok=True)
