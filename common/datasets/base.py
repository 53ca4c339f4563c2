"""The interface of a data set: labelled examples with one or more modalities, in a training and a test part."""

import logging
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from common.columns import Columns
from common.config.component import Component
from common.config.task import TaskName
from common.data.shard import Example
from common.errors import DataError
from common.modality import Modality
from common.seeding import rng

log = logging.getLogger(__name__)

T = TypeVar("T")


class DataSet(Component):
    """A data set with its options. Each subclass is in its own file, which has the name that configs use."""

    modalities: ClassVar[tuple[Modality, ...]]
    licence: ClassVar[str]
    """The licence of the examples, which is written into shard.json."""
    folders: ClassVar[tuple[str, ...]] = ()
    """The options that contain folders of source files."""

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Names of the classes in the order of their indices, of the labels, or of the targets."""

    @property
    def task(self) -> TaskName:
        """The task that the labels are for. By default, each example has one class."""
        return "single-label"

    @property
    def tasks(self) -> frozenset[TaskName]:
        """The tasks of experiments that can use the data set."""
        return frozenset({self.task})

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of thing that a class is, e.g. {"cardinal": "bird"}, for the prompts of completion. Empty by
        default."""
        return {}

    @property
    def columns(self) -> Mapping[Modality, Columns]:
        """The columns of the modalities that are tables. Empty by default."""
        return {}

    @abstractmethod
    def examples(self, part: str, seed: int) -> list[Example]:
        """The examples of the part "train" or "test". No recording or image is in both parts.

        Raises DataError when source files are absent or malformed.
        """


def pair_by_label(
    left: Sequence[tuple[str, T]], right: Sequence[tuple[str, T]], seed: int, purpose: str
) -> list[tuple[str, T, T]]:
    """(label, left item, right item): items of one label paired at random, each used at most once.

    Surplus items of a label are left out. The result is sorted by label.
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
    """The first folder among the known layouts that contains files matching the pattern.

    name: the data set's name, for the message. Raises DataError, which lists the folders that were searched.
    """
    for layout in layouts:
        folder = Path(given) / layout
        if next(folder.glob(pattern), None) is not None:
            return folder
    looked = ", ".join(str(Path(given) / layout) for layout in layouts)
    raise DataError(f"{name}: no {pattern} in {looked}")


def read_lines(name: str, path: Path) -> list[str]:
    """The lines of a file, without empty lines.

    name: the data set's name, for the message. Raises DataError when the file does not exist or is not UTF-8 text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise DataError(f"{name}: {path} cannot be read: {reason}") from None
    # Not splitlines, because a tweet may contain characters that splitlines treats as the end of a line.
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def only_in_training(name: str, train: Sequence[T], test: Sequence[T], key: Callable[[T], Hashable]) -> list[T]:
    """The training items whose source (their `key`) is not in the test part. The number of the others is logged."""
    held_out = {key(item) for item in test}
    kept = [item for item in train if key(item) not in held_out]
    if len(kept) < len(train):
        removed = len(train) - len(kept)
        log.warning("%s: %d training examples are left out because they are also in the test part", name, removed)
    return kept
