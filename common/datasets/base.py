"""What a data set offers: labelled examples, each with one or more modalities, in a training and a test part."""

import logging
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from common.config.component import Component
from common.data.shard import Example
from common.errors import DataError
from common.modality import Modality
from common.seeding import rng

log = logging.getLogger(__name__)

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

    @property
    def kinds(self) -> dict[str, str]:
        """What a class is a kind of, e.g. {"cardinal": "bird"}, for the prompts of completion; by default nothing."""
        return {}

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


def find_folder(name: str, given: str, layouts: Sequence[str], pattern: str) -> Path:
    """The first of the known layouts below a folder that has files of the pattern.

    Raises DataError, for the data set of that name, listing where it looked.
    """
    for layout in layouts:
        folder = Path(given) / layout
        if next(folder.glob(pattern), None) is not None:
            return folder
    looked = ", ".join(str(Path(given) / layout) for layout in layouts)
    raise DataError(f"{name}: no {pattern} in {looked}")


def read_lines(name: str, path: Path) -> list[str]:
    """The lines of a list, without empty ones.

    Raises DataError, for the data set of that name, when there is no such file or it is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"{name}: {path} cannot be read: {reason}") from None
    # Not splitlines: a tweet may hold characters that it takes for the end of a line.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def only_in_training(name: str, train: Sequence[T], test: Sequence[T], key: Callable[[T], Hashable]) -> list[T]:
    """The training items whose source, as `key` has it, is not in the test part as well; logs how many are."""
    held_out = {key(item) for item in test}
    kept = [item for item in train if key(item) not in held_out]
    if len(kept) < len(train):
        log.warning("%s: %d training examples are left out, the test part has them", name, len(train) - len(kept))
    return kept
