"""What a data set offers: labelled examples, each with one or more modalities, in a training and a test part."""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from common.component import Component
from common.data.shard import Example
from common.seeding import rng
from common.types import Modality

T = TypeVar("T")


class DataSet(Component):
    """A data set with its options. A subclass is one file, named as configs name it."""

    modalities: ClassVar[tuple[Modality, ...]]
    licence: ClassVar[str]
    """Of the examples, as it is written into shard.json."""
    folders: ClassVar[tuple[str, ...]] = ()
    """The options that say where the source files lie."""

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Class names in the order of their indices."""

    @abstractmethod
    def examples(self, part: str, seed: int) -> list[Example]:
        """The examples of "train" or "test"; no recording or image is in both.

        Raises DataError when source files are absent or malformed.
        """


def pair_by_label(
    left: Sequence[tuple[str, T]], right: Sequence[tuple[str, T]], seed: int, purpose: str
) -> list[tuple[str, T, T]]:
    """(label, left item, right item): items of one label paired at random, each used at most once.

    Surplus items of a label are left out. The order of the result is by label; it is not shuffled.
    """
    pools: list[dict[str, list[T]]] = []
    for items in (left, right):
        pool = defaultdict(list)
        for label, item in items:
            pool[label].append(item)
        pools.append(pool)
    pairs = []
    for label in sorted(pools[0].keys() & pools[1].keys()):
        shuffled = [
            [pool[label][i] for i in rng(seed, "pair", purpose, label, side).permutation(len(pool[label]))]
            for side, pool in enumerate(pools)
        ]
        pairs += [(label, a, b) for a, b in zip(*shuffled, strict=False)]
    return pairs
