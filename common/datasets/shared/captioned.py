"""Photographs with ten captions per photograph.

S. Reed, Z. Akata, H. Lee, B. Schiele, "Learning Deep Representations of Fine-Grained Visual Descriptions", CVPR 2016.
The folder `text_c10` contains one folder per class. A class folder contains one text file per image, with one caption
per line.
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
    """An image: its number in the data set, its class, and the paths of its file and its captions, which may be
    absent."""

    number: int
    label: str
    image: Path
    captions: Path


class Captioned(DataSet):
    """Photographs with captions. The text of an example is one of the image's captions, which is drawn with the
    experiment's seed."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    folders: ClassVar[tuple[str, ...]] = ("folder",)
    title: ClassVar[str]
    kind: ClassVar[str]
    """The kind of thing that every class is, e.g. "bird"."""

    folder: str
    """The folder with images and captions."""
    split: Literal["official", "ninety-ten"] = "ninety-ten"
    """How the images are divided into training and test part. `ninety-ten` holds out a tenth of the images, the same
    ones in every experiment and as many as in the FedMVP paper (2.8 of docs/methods.md). `official` is the split of the
    data set's authors."""

    @abstractmethod
    def photographs(self) -> list[Photograph]:
        """The photographs of both parts.

        Raises DataError when a list is absent or malformed, or when there are no captions at all.
        """

    @abstractmethod
    def tested(self) -> set[int]:
        """The numbers of the images in the official test part."""

    @property
    def kinds(self) -> dict[str, str]:
        """The same kind for all classes."""
        return dict.fromkeys(self.classes, self.kind)

    def examples(self, part: str, seed: int) -> list[Example]:
        """The images of a part. A training image with the same bytes as a test image is left out."""
        photographs = self.photographs()
        tested = self.tested() if self.split == "official" else _tenth(self.title, photographs)
        chosen = test = [item for item in photographs if item.number in tested]
        if part == "train":
            train = [item for item in photographs if item.number not in tested]
            chosen = only_in_training(self.title, train, test, _content)
        return [_example(item, seed) for item in chosen]


def _tenth(name: str, photographs: list[Photograph]) -> set[int]:
    """The numbers of every tenth image. The images are sorted by class and shuffled within their classes.

    The first one is the ninth image, because this gives the paper's numbers: 1,178 of 11,788 and 819 of 8,189.
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
        read(item.image)  # raises for a file that is not an image, so that it is left out and counted
        return item.image.read_bytes()

    def text() -> bytes:
        captions = _captions(item.captions)
        return captions[rng(seed, "caption", name).integers(len(captions))].encode()

    return Example(name, item.label, {"image": Media(jpg, item.image.suffix), "text": Media(text)})


def _captions(path: Path) -> list[str]:
    """The lines of a file. Some published files contain bytes or marks instead of a lost character; these become
    spaces.

    Raises ValueError when there are no captions.
    """
    text = path.read_text(encoding="utf-8", errors="replace").replace("\ufffd", " ")
    captions = [" ".join(line.split()) for line in text.split("\n") if line.strip()]
    if not captions:
        raise ValueError(f"{path} has no captions")
    return captions
