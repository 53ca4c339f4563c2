"""flowers-102: photographs of flowers of 102 categories (Oxford Flowers-102) with ten captions per image.

M.-E. Nilsback, A. Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008. 8,189
images; the authors' split has 1,020 for training, 1,020 for validation and 6,149 for testing. Captions: S. Reed et al.,
CVPR 2016 (`cvpr2016_flowers/text_c10`).
"""

import zlib
from io import BytesIO
from pathlib import Path
from typing import ClassVar

from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from common.datasets.base import find_folder
from common.datasets.shared.captioned import Captioned, Photograph
from common.errors import DataError

NAME = "flowers-102"
IMAGES = ["", "flowers-102", "102flowers"]
CAPTIONS = ["text_c10", "flowers/text_c10", "cvpr2016_flowers/text_c10", "captions"]
CLASSES = [
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily",
    "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea",
    "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth",
    "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower",
    "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush", "californian poppy",
    "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania", "azalea", "water lily",
    "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily", "anthurium", "frangipani",
    "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia", "cyclamen", "watercress",
    "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea", "camellia", "mallow",
    "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
]  # fmt: skip
"""The commonly used class names, in the order of the labels. The data set itself contains only label numbers."""
UNREADABLE = (OSError, ValueError, TypeError, LookupError, NotImplementedError, zlib.error, MatReadError)
"""The exceptions that SciPy raises for a file that is not a .mat file or is truncated."""


class Flowers102(Captioned):
    """Flowers of 102 classes. With the official split, the validation part is training data, because sites hold out
    their own validation examples."""

    licence: ClassVar[str] = "photographs belong to their owners; for research (Oxford Flowers-102)"
    title: ClassVar[str] = NAME
    kind: ClassVar[str] = "flower"

    folder: str
    """The folder with jpg, imagelabels.mat, text_c10 and, for the official split, setid.mat."""

    @property
    def classes(self) -> list[str]:
        """The class names in the order of the labels."""
        return list(CLASSES)

    def photographs(self) -> list[Photograph]:
        """One photograph per label in imagelabels.mat."""
        root, captions = self._root(), find_folder(NAME, self.folder, CAPTIONS, "*/*.txt")
        found = []
        for number, label in enumerate(_numbers(root / "imagelabels.mat", "labels"), start=1):
            if not 1 <= label <= len(CLASSES):
                raise DataError(f"{NAME}: {root / 'imagelabels.mat'}: {label} is not a label from 1 to {len(CLASSES)}")
            stem = f"image_{number:05d}"
            text = captions / f"class_{label:05d}" / f"{stem}.txt"
            found.append(Photograph(number, CLASSES[label - 1], root / "jpg" / f"{stem}.jpg", text))
        return found

    def tested(self) -> set[int]:
        """The numbers in `tstid` of setid.mat."""
        return set(_numbers(self._root() / "setid.mat", "tstid"))

    def _root(self) -> Path:
        return find_folder(NAME, self.folder, IMAGES, "imagelabels.mat")


def _numbers(path: Path, key: str) -> list[int]:
    try:
        return [int(number) for number in loadmat(BytesIO(path.read_bytes()))[key].ravel()]
    except KeyError:
        raise DataError(f"{NAME}: {path} has no {key}") from None
    except UNREADABLE as error:
        raise DataError(f"{NAME}: {path} cannot be read: {error}") from None
