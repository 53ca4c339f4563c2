"""A shard in memory: every usable example prepared by the encoders, column by column."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from common.data.media import Raw, read
from common.data.shard import Record, Shard
from common.encoders.base import Encoder
from common.errors import ShardError
from common.seeding import derive
from common.types import Batch, Modality, Origin

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """The usable examples of a shard.

    ids: of the examples, in the order of the rows.
    unreadable: per modality, how many files could not be read; they count as missing.
    unusable: how many examples had no readable modality at all and were left out.
    """

    examples: Batch
    ids: list[str]
    unreadable: Mapping[Modality, int]
    unusable: int

    def split(self, share: float, seed: int) -> tuple[Batch, Batch]:
        """Training and validation part. Which part an example is in depends on its id and the seed alone, so it stays
        there when others come or go. With at least one example left to train on, `share` is met on average."""
        held_out = torch.tensor([derive(seed, "validation", name) < share * 2**63 for name in self.ids])
        if held_out.all():
            held_out[0] = False
        return self.examples.rows(~held_out), self.examples.rows(held_out)


def load(shard: Shard, encoders: Mapping[Modality, Encoder]) -> Loaded:
    """Read and prepare the modalities that the shard holds and the model has encoders for.

    Raises ShardError naming the shard when no example is usable.
    """
    held = [modality for modality in sorted(encoders) if modality in shard.info.modalities]
    if not held:
        raise ShardError(
            f"shard {shard.folder}: holds {', '.join(shard.info.modalities)}, "
            f"the model has encoders for {', '.join(sorted(encoders))}"
        )
    unreadable: Counter[Modality] = Counter()
    values = [{m: _prepare(record, m, encoders[m], unreadable) for m in held} for record in shard.records]
    usable = [i for i, row in enumerate(values) if any(value is not None for value in row.values())]
    if not usable:
        broken = ", ".join(f"{count} {m}" for m, count in sorted(unreadable.items())) or "none"
        raise ShardError(f"shard {shard.folder}: no usable example among {len(values)}; unreadable files: {broken}")
    columns = {m: _column([values[i][m] for i in usable], encoders[m]) for m in held}
    labels = torch.tensor([shard.label_index(shard.records[i]) for i in usable])
    batch = Batch({m: c[0] for m, c in columns.items()}, {m: c[1] for m, c in columns.items()}, labels)
    return Loaded(batch, [shard.records[i].id for i in usable], dict(unreadable), len(values) - len(usable))


def _prepare(record: Record, modality: Modality, encoder: Encoder, unreadable: Counter[Modality]) -> Tensor | None:
    """The prepared value; None where it is missing or unreadable, the latter counted and logged."""
    raw: Raw
    if modality in record.texts:
        raw = record.texts[modality]
    elif modality not in record.files:
        return None
    try:
        raw = read(record.files[modality]) if modality in record.files else raw
        return encoder.prepare(raw)
    except ValueError as error:
        log.warning("%s of example %s is treated as missing: %s", modality, record.id, error)
        unreadable[modality] += 1
        return None


def _column(values: list[Tensor | None], encoder: Encoder) -> tuple[Tensor, Tensor]:
    """Inputs [N, ...] with blanks where a value is missing, and origins [N]."""
    blank = encoder.blank()
    inputs = torch.stack([blank if value is None else value for value in values])
    origin = torch.tensor([Origin.MISSING if value is None else Origin.OBSERVED for value in values])
    return inputs, origin


def batches(examples: Batch, size: int, order: torch.Generator | None = None) -> Iterator[Batch]:
    """The examples in batches of `size`, shuffled by `order` if given; the last one may be smaller."""
    index = torch.arange(len(examples)) if order is None else torch.randperm(len(examples), generator=order)
    for chosen in torch.split(index, size):
        yield examples.rows(chosen)
