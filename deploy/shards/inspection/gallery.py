"""The examples that the page of a shard shows."""

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass

from PIL.Image import Image

from common.data.shard import Record, Shard
from common.media.values import Raw
from common.modality import Modality, subset_name
from common.seeding import rng
from common.split.strata import strata
from common.tasks.labels import NO_LABEL
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
        """The drawn examples, by stratum."""
        return [self._shown[name] for name in self.chosen if name in self._shown]


def choose(shard: Shard) -> list[str]:
    """The ids of a few examples of each stratum, by stratum: of each class; of each label, where an example counts for
    its rarest label; or of each tenth of the first target.

    The choice is the same for the same shard, and covers as many different sets of modalities as possible. If there are
    very many strata, only some are chosen.
    """
    most = max(1, MOST_VALUES // len(shard.info.modalities))
    stratum_of = _strata(shard)
    names = _names(shard, set(stratum_of.values()))
    names = [names[i] for i in sorted(rng(SEED, "classes").permutation(len(names))[:most])]
    each = min(MOST_PER_CLASS, max(1, most // max(1, len(names))))
    members: dict[str, list[Record]] = {name: [] for name in names}
    for index in rng(SEED, "examples").permutation(len(shard.records)):
        record = shard.records[index]
        if (stratum := stratum_of[record.id]) in members:
            members[stratum].append(record)
    return [record.id for name in names for record in _varied(members[name], shard)[:each]]


def _strata(shard: Shard) -> dict[str, str]:
    """The stratum of each example by id; NO_LABEL for an example without a label."""
    labelled = [record for record in shard.records if record.label != NO_LABEL]
    found = zip(labelled, strata([record.label for record in labelled]), strict=True)
    return dict.fromkeys((record.id for record in shard.records), NO_LABEL) | {one.id: name for one, name in found}


def _names(shard: Shard, there: Set[str]) -> list[str]:
    """The names of the strata in the order of the page: the classes, else the strata that are `there`."""
    if shard.info.task == "single-label" and there != {NO_LABEL}:
        return shard.info.classes
    order = {name: place for place, name in enumerate(shard.info.classes)}
    return sorted(there, key=lambda name: (order.get(name, len(order)), name))


def _varied(records: list[Record], shard: Shard) -> list[Record]:
    """The records in this order: one of each set of modalities, then a second one of each, and so on."""
    seen = Counter[str]()
    turns = []
    for record in records:
        pattern = subset_name(m for m in shard.info.modalities if record.has(m))
        turns.append(seen[pattern])
        seen[pattern] += 1
    return [record for _, record in sorted(zip(turns, records, strict=True), key=lambda pair: pair[0])]
