"""Photographs with ten captions each.

S. Reed, Z. Akata, H. Lee, B. Schiele, "Learning Deep Representations of Fine-Grained Visual Descriptions", CVPR 2016:
a folder `text_c10` with a folder a class and in it a text file an image, one caption a line.
"""

import hashlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from common.data.shard import Example, Media
from common.datasets.base import DataSet, only_in_training
from common.media.values import read
from common.seeding import rng


@dataclass(frozen=True)
class Photograph:
    """An image by its number in the set, its class, and where it and its captions are (or would be)."""

    number: int
    label: str
    image: Path
    captions: Path


class Captioned(DataSet):
    """Photographs with captions. The text of an example is one of the image's captions, chosen by the experiment's
    seed."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    folders: ClassVar[tuple[str, ...]] = ("folder",)
    title: ClassVar[str]
    kind: ClassVar[str]
    """What every class is a kind of."""

    folder: str
    """Where images and captions lie."""
    split: Literal["official", "ninety-ten"] = "ninety-ten"
    """`ninety-ten` holds out every tenth image of each class, drawn once and the same in every experiment, as many as
    the FedMVP paper has (2.8 of docs/methods.md); `official` is the split of the set's authors."""

    @abstractmethod
    def photographs(self) -> list[Photograph]:
        """Those of both parts.

        Raises DataError when a list is absent or malformed, or there are no captions at all.
        """

    @abstractmethod
    def tested(self) -> set[int]:
        """The numbers of the images in the official test part."""

    @property
    def kinds(self) -> dict[str, str]:
        """The same for all."""
        return dict.fromkeys(self.classes, self.kind)

    def examples(self, part: str, seed: int) -> list[Example]:
        """The images of a part; a training image that is also a test image, byte for byte, is left out."""
        photographs = self.photographs()
        tested = self.tested() if self.split == "official" else _tenth(self.title, photographs)
        chosen = test = [item for item in photographs if item.number in tested]
        if part == "train":
            train = [item for item in photographs if item.number not in tested]
            chosen = only_in_training(self.title, train, test, _content)
        return [_example(item, seed) for item in chosen]


def _tenth(name: str, photographs: list[Photograph]) -> set[int]:
    """Every tenth of the images, shuffled within their classes and put class after class.

    It begins at the ninth: that gives the paper's 1,178 of 11,788 and 819 of 8,189.
    """
    numbers: dict[str, list[int]] = defaultdict(list)
    for item in photographs:
        numbers[item.label].append(item.number)
    ordered = [
        held[index]
        for label, held in sorted(numbers.items())
        for index in rng(0, name, "test part", label).permutation(len(held))
    ]
    return set(ordered[8::10])


def _content(item: Photograph) -> Hashable:
    try:
        return hashlib.sha256(item.image.read_bytes()).digest()
    except OSError:
        return item.image


def _example(item: Photograph, seed: int) -> Example:
    name = item.image.stem

    def jpg() -> bytes:
        read(item.image)  # A file that is no image is left out now, and counted.
        return item.image.read_bytes()

    def text() -> bytes:
        captions = _captions(item.captions)
        return captions[rng(seed, "caption", name).integers(len(captions))].encode()

    return Example(name, item.label, {"image": Media(jpg, item.image.suffix), "text": Media(text)})


def _captions(path: Path) -> list[str]:
    """The lines of a file. Here and there the published ones have bytes or marks in the place of a lost character."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\ufffd", " ")
    captions = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
    if not captions:
        raise ValueError(f"{path} has no captions")
    return captions
