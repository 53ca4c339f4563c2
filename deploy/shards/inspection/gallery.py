"""The examples that the page of a shard shows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from PIL.Image import Image

from common.data.shard import Record, Shard
from common.media.values import Raw
from common.modality import Modality, subset_name
from common.seeding import rng
from deploy.shards.inspection.drawing import draw

MOST_VALUES, MOST_PER_CLASS = 96, 3
SEED = 1


@dataclass(frozen=True)
class Shown:
    """One example. drawn: its readable values; broken: reasons why others cannot be read."""

    record: Record
    drawn: Mapping[Modality, Image | str]
    broken: Mapping[Modality, str]


class Gallery:
    """Draws the chosen examples while they are in memory."""

    def __init__(self, shard: Shard) -> None:
        self.chosen = choose(shard)
        self._shown: dict[str, Shown] = {}

    def look(self, record: Record, values: Mapping[Modality, Raw], broken: Mapping[Modality, str]) -> None:
        """Draw the values if the example is chosen."""
        if record.id in self.chosen:
            self._shown[record.id] = Shown(record, {m: draw(raw) for m, raw in values.items()}, broken)

    @property
    def shown(self) -> list[Shown]:
        """The drawn examples, by class."""
        return [self._shown[name] for name in self.chosen if name in self._shown]


def choose(shard: Shard) -> list[str]:
    """The ids of a few examples of each class, by class.

    The choice is the same for the same shard, and covers as many different sets of modalities as possible. If there are
    very many classes, only some are chosen.
    """
    most = max(1, MOST_VALUES // len(shard.info.modalities))
    classes = [shard.info.classes[i] for i in sorted(rng(SEED, "classes").permutation(len(shard.info.classes))[:most])]
    each = min(MOST_PER_CLASS, max(1, most // len(classes)))
    by_class: dict[str, list[Record]] = {label: [] for label in classes}
    for index in rng(SEED, "examples").permutation(len(shard.records)):
        record = shard.records[index]
        if record.label in by_class:
            by_class[record.label].append(record)
    return [record.id for label in classes for record in _varied(by_class[label], shard)[:each]]


def _varied(records: list[Record], shard: Shard) -> list[Record]:
    """The records in this order: one of each set of modalities, then a second one of each, and so on."""
    seen = Counter[str]()
    turns = []
    for record in records:
        pattern = subset_name(m for m in shard.info.modalities if record.has(m))
        turns.append(seen[pattern])
        seen[pattern] += 1
    return [record for _, record in sorted(zip(turns, records, strict=True), key=lambda pair: pair[0])]
