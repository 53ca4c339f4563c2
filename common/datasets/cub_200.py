"""cub-200: photographs of birds of 200 species (Caltech-UCSD Birds-200-2011) with ten captions per image.

C. Wah, S. Branson, P. Welinder, P. Perona, S. Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", California Institute
of Technology, CNS-TR-2011-001, 2011. 11,788 images; the authors' split has 5,994 for training and 5,794 for testing.
Captions: S. Reed et al., CVPR 2016 (`cvpr2016_cub/text_c10`).
"""

import re
from pathlib import Path
from typing import ClassVar

from common.datasets.base import find_folder, read_lines
from common.datasets.shared.captioned import Captioned, Photograph
from common.errors import DataError

NAME = "cub-200"
IMAGES = ["", "CUB_200_2011"]
CAPTIONS = ["text_c10", "birds/text_c10", "cvpr2016_cub/text_c10", "CUB_200_2011/text_c10", "captions"]
IMAGE = re.compile(r"(\d+)\.[^/\0]+/[^/\0]+\.jpg")
NUMBERS = re.compile(r"\d+_\d+$")


class Cub200(Captioned):
    """Birds of 200 species."""

    licence: ClassVar[str] = "photographs belong to their owners; for non-commercial research (CUB-200-2011)"
    title: ClassVar[str] = NAME
    kind: ClassVar[str] = "bird"

    folder: str
    """The folder with CUB_200_2011 and text_c10."""

    @property
    def classes(self) -> list[str]:
        """The species in the order of classes.txt, e.g. "Black footed Albatross"."""
        return list(_species(self._root()).values())

    def photographs(self) -> list[Photograph]:
        """The photographs in images.txt."""
        root = self._root()
        names, labels = _species(root), _table(root / "image_class_labels.txt")
        captions = _captions(find_folder(NAME, self.folder, CAPTIONS, "*/*.txt"))
        found = []
        for number, name in _table(root / "images.txt").items():
            if not IMAGE.fullmatch(name):
                raise DataError(f"{NAME}: {root / 'images.txt'}: {name!r} does not have the form class/image.jpg")
            if labels.get(number) not in names:
                raise DataError(
                    f"{NAME}: {root / 'image_class_labels.txt'}: image {number} has no class of classes.txt"
                )
            path = root / "images" / name
            text = captions.get(_key(path), path.with_suffix(".txt"))
            found.append(Photograph(number, names[labels[number]], path, text))
        return found

    def tested(self) -> set[int]:
        """The numbers of the images with a 0 in train_test_split.txt."""
        return {number for number, train in _table(self._root() / "train_test_split.txt").items() if train == "0"}

    def _root(self) -> Path:
        return find_folder(NAME, self.folder, IMAGES, "images.txt")


def _species(root: Path) -> dict[str, str]:
    """The names by class number; images are labelled with this number."""
    path = root / "classes.txt"
    names = {str(number): name.partition(".")[2].replace("_", " ") for number, name in _table(path).items()}
    if not all(names.values()) or len(set(names.values())) != len(names):
        raise DataError(f"{NAME}: {path} must have different names such as 001.Black_footed_Albatross")
    return names


def _table(path: Path) -> dict[int, str]:
    """The lines of a list. Each line has a number and a value."""
    table = {}
    for line in read_lines(NAME, path):
        number, _, value = line.strip().partition(" ")
        if not number.isdecimal() or not value:
            raise DataError(f"{NAME}: {path}: {line!r} is not a number and a value")
        table[int(number)] = value
    if not table:
        raise DataError(f"{NAME}: {path} is empty")
    return table


def _captions(folder: Path) -> dict[tuple[str, str], Path]:
    return {_key(path): path for path in folder.glob("*/*.txt")}


def _key(path: Path) -> tuple[str, str]:
    """The number of the class and the numbers of the image. Names are not compared, because the captions use earlier
    names of 17 species, such as 009.Brewers_Blackbird for 009.Brewer_Blackbird."""
    numbers = NUMBERS.search(path.stem)
    return path.parent.name.partition(".")[0], numbers[0] if numbers else path.stem
