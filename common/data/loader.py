"""Loads a shard: the encoders prepare every usable example, column by column."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from common.config.component import Reference
from common.data.completed import find_completed
from common.data.prepared.column import Column
from common.data.prepared.frozen import frozen_column
from common.data.prepared.made import Made
from common.data.prepared.trained import trained_column
from common.data.shard import Record, Shard
from common.encoders.base import Encoder, FrozenEncoder
from common.errors import ShardError
from common.findings import Findings, unreadable_in_words
from common.media.values import Value
from common.modality import Modality
from common.rows import Rows
from common.seeding import derive
from common.tasks.targets import targets
from common.types import Batch, Origin


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
    shard: Shard,
    encoders: Mapping[Modality, Encoder],
    completion: Mapping[Modality, Reference] | None = None,
    made: Mapping[Modality, Made] | None = None,
) -> Loaded:
    """Read and prepare the modalities that the shard holds and the model has encoders for.

    completion: by modality, the completer that generated its missing values. The generated values are then used, and
    all of them must exist.
    made: how the encoders were made. Only then can several processes prepare the values, and the cache keep them.

    Raises ShardError, which names the shard, when no example is usable, the shard is not completed, or the type or
    unit of a column differs from the encoder's.
    """
    completed = {m: find_completed(shard, m, given) for m, given in (completion or {}).items()}
    held = [m for m in sorted(encoders) if m in shard.info.modalities or completed.get(m)]
    if not held:
        raise ShardError(
            f"shard {shard.folder}: it holds {', '.join(shard.info.modalities)}, "
            f"but the model has encoders for {', '.join(sorted(encoders))}"
        )
    _check_columns(shard, {m: encoders[m] for m in held})
    values = {m: [_value(shard, record, m, completed.get(m, {})) for record in shard.records] for m in held}
    columns = {m: _column(shard, m, encoders[m], values[m], (made or {}).get(m)) for m in held}
    findings = {m: columns[m].findings for m in held}
    usable = torch.stack([columns[m].usable for m in held]).any(0).nonzero()[:, 0]
    if not len(usable):
        said = [f"\n  - {unreadable_in_words(m, found)}" for m, found in findings.items() if found.unreadable]
        raise ShardError(f"shard {shard.folder}: no usable example among {len(shard.records)}{''.join(said)}")
    inputs = Rows({m: columns[m].values for m in held}, {m: columns[m].index[usable] for m in held})
    origin = {m: _origin(values[m], columns[m])[usable] for m in held}
    records = [shard.records[row] for row in usable.tolist()]
    labels = targets(shard.info.task, [record.label for record in records], shard.info.classes)
    ids = [record.id for record in records]
    keys = torch.tensor([derive(0, "example", name) for name in ids])
    return Loaded(Batch(inputs, origin, labels, keys), ids, findings, len(shard.records) - len(ids))


def _check_columns(shard: Shard, encoders: Mapping[Modality, Encoder]) -> None:
    mistakes = [f"{m}: {why}" for m in encoders for why in encoders[m].check_columns(shard.columns.get(m, {}))]
    if mistakes:
        raise ShardError(f"shard {shard.folder}: {'; '.join(mistakes)}")


def _value(shard: Shard, record: Record, modality: Modality, completed: Mapping[str, str | Path]) -> Value | None:
    """The value of a modality of an example: the shard's own value, else the generated value, else None."""
    if record.has(modality):
        return Value(record.value(modality), rate=shard.info.rates.get(modality))
    generated = completed.get(record.id)
    return Value(generated, generated=True) if generated is not None else None


def _column(
    shard: Shard, modality: Modality, encoder: Encoder, values: list[Value | None], made: Made | None
) -> Column:
    if isinstance(encoder, FrozenEncoder):
        return frozen_column(shard, modality, encoder, values)
    return trained_column(shard, modality, encoder, values, made)


def _origin(values: list[Value | None], column: Column) -> Tensor:
    """[R] of `Origin` values for the rows of the shard."""
    generated = torch.tensor([value is not None and value.generated for value in values])
    there = torch.where(generated, int(Origin.GENERATED), int(Origin.OBSERVED))
    return torch.where(column.usable, there, int(Origin.MISSING))
