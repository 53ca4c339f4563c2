"""What frozen encoders make of a shard, computed once and kept in the shard's folder `cache`.

A file is mapped into memory when it is read: what no batch asks for is not read, nothing is copied whole, and processes
on one machine share what was. It is never written to again, only replaced.

A file is named by all that its content depends on: the encoder with its weights and preprocessing, and the values of
the column. Whatever of that changes, another file is made. The folder may be deleted at any time.
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
"""Values that are encoded at a time."""
GIGABYTES_VARIABLE, GIGABYTES = "FEDMOSAIC_CACHE_GB", 10.0
"""Most that the folder of a shard may hold: a server chooses what encoders are asked for, and how often others."""
LEFT_FREE = 1 << 30
"""Bytes of the disk that features never take."""


def frozen_column(shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]) -> Column:
    """Features [n, 1 + T, D], float16; rows without a readable value are left out, the unreadable ones logged.

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
    """Take away what was used longest ago, as far as the limit of the folder asks for it. Whether there is room then,
    for this limit and on the disk; else the features are computed again next time."""
    size, most = kept.values.nbytes, bytes_allowed(GIGABYTES_VARIABLE, GIGABYTES)
    try:
        free = shutil.disk_usage(path.parent if path.parent.exists() else path.parent.parent).free
    except OSError:
        return False
    if size > most or size + LEFT_FREE > free:
        log.warning("features of %d bytes are not kept: the limit is %d, and %d are free", size, most, free)
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
        kept = load_file(path)  # maps it; only its header is read here
        with contextlib.suppress(OSError):
            os.utime(path)  # was used now
        return Column(kept["rows"].tolist(), kept["features"], Findings.model_validate_json(said))
    except (OSError, SafetensorError, KeyError, ValidationError) as error:
        log.warning("%s is made anew: %s", path, error)
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
    """Rows and inputs of the readable values, a chunk at a time."""
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
    """At once or not at all. A shard that cannot be written to is encoded anew by every process."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        tensors = {"rows": torch.tensor(kept.rows, dtype=torch.int64), "features": kept.values}
        save_file(tensors, partial, {"findings": kept.findings.model_dump_json()})
        os.replace(partial, path)
    except OSError as error:
        log.warning("features are not kept, so they are computed again next time: %s", error)
        partial.unlink(missing_ok=True)
