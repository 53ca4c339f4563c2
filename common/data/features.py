"""What frozen encoders make of a shard, computed once and kept in the shard's folder `cache`.

A file is mapped into memory when it is read: what no batch asks for is not read, nothing is copied whole, and processes
on one machine share what was. It is never written to again, only replaced.

A file is named by all that its content depends on: the encoder with its weights and preprocessing, and the values of
the column. Whatever of that changes, another file is made. The folder may be deleted at any time.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.data.column import Column
from common.data.media import Value
from common.data.shard import Shard, part
from common.encoders.base import FrozenEncoder
from common.types import Modality

log = logging.getLogger(__name__)
CACHE = "cache"
CHUNK = 64
"""Values that are encoded at a time."""


def frozen_column(shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]) -> Column:
    """Features [n, 1 + T, D], float16; rows without a readable value are left out, the unreadable ones logged.

    Raises ShardError when the folder `cache` is a link that leads out of the shard.
    """
    path = part(shard.folder, CACHE) / f"{modality}-{_key(shard, encoder, values)}.safetensors"
    kept = _read(path)
    if kept is None:
        kept = _compute(shard, modality, encoder, values)
        _write(path, kept)
        kept = _read(path) or kept
    return Column(kept["rows"].tolist(), kept["features"])


def _key(shard: Shard, encoder: FrozenEncoder, values: Sequence[Value | None]) -> str:
    described = [None if value is None else value.stamp(shard.folder) for value in values]
    return hashlib.sha256(json.dumps([encoder.described(), described]).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, Tensor] | None:
    if not path.exists():
        return None
    try:
        kept = load_file(path)  # maps it; only its header is read here
        return kept if kept.keys() == {"rows", "features"} else None
    except (OSError, SafetensorError) as error:
        log.warning("%s is made anew: %s", path, error)
        return None


def _compute(
    shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]
) -> dict[str, Tensor]:
    rows: list[int] = []
    parts: list[Tensor] = []
    for index, inputs in _chunks(shard, modality, encoder, values):
        rows += index
        parts.append(encoder.extract(torch.stack(inputs)).half())
    features = torch.cat(parts) if parts else encoder.blank().unsqueeze(0)[:0]
    return {"rows": torch.tensor(rows, dtype=torch.int64), "features": features.contiguous()}


def _chunks(
    shard: Shard, modality: Modality, encoder: FrozenEncoder, values: Sequence[Value | None]
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Rows and inputs of the readable values, a chunk at a time."""
    rows: list[int] = []
    inputs: list[Tensor] = []
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            inputs.append(encoder.tower.inputs(value.read()))
            rows.append(row)
        except ValueError as error:
            log.warning("%s of example %s is treated as missing: %s", modality, shard.records[row].id, error)
        if len(rows) == CHUNK:
            yield rows, inputs
            rows, inputs = [], []
    if rows:
        yield rows, inputs


def _write(path: Path, kept: dict[str, Tensor]) -> None:
    """At once or not at all. A shard that cannot be written to is encoded anew by every process."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        save_file(kept, partial)
        os.replace(partial, path)
    except OSError as error:
        log.warning("features are not kept, so they are computed again next time: %s", error)
        partial.unlink(missing_ok=True)
