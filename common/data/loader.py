"""Loads a shard into memory: the encoders prepare every usable example, column by column."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.config.component import Reference
from common.data.column import Column
from common.data.completed import find_completed
from common.data.features import frozen_column
from common.data.finder import Finder
from common.data.limits import bytes_allowed
from common.data.shard import Record, Shard
from common.encoders.base import Encoder, FrozenEncoder
from common.errors import ShardError
from common.findings import Findings, unreadable_in_words
from common.media.values import Value
from common.modality import Modality
from common.rows import BLANK, Rows
from common.seeding import derive
from common.types import Batch, Origin

GIGABYTES_VARIABLE, GIGABYTES = "FEDMOSAIC_PREPARED_GB", 16.0
"""The maximum memory for the prepared values of one modality."""


@dataclass(frozen=True)
class Loaded:
    """The usable examples of a shard.

    ids: the ids of the examples, in the order of the rows.
    findings: by modality, the findings from reading the values. Unreadable values count as missing.
    unusable: the number of examples that have no readable modality and are left out.
    """

    examples: Batch
    ids: list[str]
    findings: Mapping[Modality, Findings]
    unusable: int
    _split: dict[tuple[float, int, str], tuple[Batch, Batch]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def unreadable(self) -> dict[Modality, int]:
        """The number of unreadable values by modality, without modalities that have none."""
        return {m: found.unreadable for m, found in self.findings.items() if found.unreadable}

    def split(self, share: float, seed: int, secret: str = "") -> tuple[Batch, Batch]:
        """The parts of `divide`. The last result is kept."""
        if (share, seed, secret) not in self._split:
            self._split.clear()
            self._split[share, seed, secret] = self.divide(share, seed, secret)
        return self._split[share, seed, secret]

    def divide(self, share: float, seed: int, secret: str = "") -> tuple[Batch, Batch]:
        """The training part and the validation part.

        The part of an example depends only on its id, the seed and the site's secret. It does not change when other
        examples are added or removed. Without the secret, the sizes of the parts do not reveal whether the site has an
        example with a certain id. The validation part has the given share of the examples on average; at least one
        example is left for training.
        """
        purpose = ("validation", secret) if secret else ("validation",)
        held_out = torch.tensor([derive(seed, *purpose, name) < share * 2**63 for name in self.ids])
        if held_out.all():
            held_out[0] = False
        return self.examples.rows(~held_out), self.examples.rows(held_out)


def load(
    shard: Shard, encoders: Mapping[Modality, Encoder], completion: Mapping[Modality, Reference] | None = None
) -> Loaded:
    """Read and prepare the modalities that the shard holds and the model has encoders for.

    completion: by modality, the completer that generated its missing values. The generated values are then used, and
    all of them must exist.

    Raises ShardError, which names the shard, when no example is usable or the shard is not completed.
    """
    completed = {m: find_completed(shard, m, given) for m, given in (completion or {}).items()}
    held = [m for m in sorted(encoders) if m in shard.info.modalities or completed.get(m)]
    if not held:
        raise ShardError(
            f"shard {shard.folder}: it holds {', '.join(shard.info.modalities)}, "
            f"but the model has encoders for {', '.join(sorted(encoders))}"
        )
    values = {m: [_value(shard, record, m, completed.get(m, {})) for record in shard.records] for m in held}
    columns = {m: _column(shard, m, encoders[m], values[m]) for m in held}
    findings = {m: columns[m].findings for m in held}
    usable = sorted(set().union(*(columns[m].rows for m in held)))
    if not usable:
        said = [f"\n  - {unreadable_in_words(m, found)}" for m, found in findings.items() if found.unreadable]
        raise ShardError(f"shard {shard.folder}: no usable example among {len(shard.records)}{''.join(said)}")
    index = {m: columns[m].places(usable) for m in held}
    inputs = Rows({m: columns[m].values for m in held}, index)
    readable = {m: (index[m] != BLANK).tolist() for m in held}
    origin = {m: torch.tensor(list(map(_origin, [values[m][i] for i in usable], readable[m]))) for m in held}
    labels = torch.tensor([shard.label_index(shard.records[i]) for i in usable])
    ids = [shard.records[i].id for i in usable]
    keys = torch.tensor([derive(0, "example", name) for name in ids])
    return Loaded(Batch(inputs, origin, labels, keys), ids, findings, len(shard.records) - len(usable))


def _value(shard: Shard, record: Record, modality: Modality, completed: Mapping[str, str | Path]) -> Value | None:
    """The value of a modality of an example: the shard's own value, else the generated value, else None."""
    if record.has(modality):
        return Value(record.value(modality), rate=shard.info.rates.get(modality))
    generated = completed.get(record.id)
    return Value(generated, generated=True) if generated is not None else None


def _column(shard: Shard, modality: Modality, encoder: Encoder, values: list[Value | None]) -> Column:
    """The prepared values, without missing and unreadable ones. Unreadable values are counted and logged."""
    if isinstance(encoder, FrozenEncoder):
        return frozen_column(shard, modality, encoder, values)
    _check_memory(modality, encoder, sum(value is not None for value in values))
    finder, rows, prepared = Finder(modality), [], []
    for i, value in enumerate(values):
        if value is None:
            continue
        if (tensor := finder.take(shard.records[i], value, encoder.prepare)) is not None:
            prepared.append(tensor)
            rows.append(i)
    return Column(rows, torch.stack(prepared) if prepared else encoder.blank().unsqueeze(0)[:0], finder.found())


def _check_memory(modality: Modality, encoder: Encoder, count: int) -> None:
    """Raises ShardError when the prepared values would take more memory than the site allows.

    The check is necessary because each size of an experiment has a limit, but the product of the sizes and the number
    of examples has none.
    """
    with torch.device("meta"):  # gives the shape without allocating memory
        blank = encoder.blank()
    needed, most = count * blank.numel() * blank.element_size(), bytes_allowed(GIGABYTES_VARIABLE, GIGABYTES)
    if needed > most:
        raise ShardError(
            f"{modality}: {count} prepared values would take {needed / 1e9:.1f} GB of memory, {GIGABYTES_VARIABLE} "
            f"allows {most / 1e9:g} GB: choose smaller sizes in the encoder, or set {GIGABYTES_VARIABLE} higher"
        )


def _origin(value: Value | None, readable: bool) -> Origin:
    if value is None or not readable:
        return Origin.MISSING
    return Origin.GENERATED if value.generated else Origin.OBSERVED
