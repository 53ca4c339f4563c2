"""fashion: product photographs with the words of the product names. The class is the type of article.

P. Aggarwal, "Fashion Product Images (Small)", Kaggle, 2019. `meta.tsv` (id, masked, brand, articleType, split, ...) and
`images_96.zip` ({id}.jpg). The text is the column `masked`, the product name without the words that reveal the class.
"""

import csv
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.base import DataSet
from common.datasets.shared.degrade import noisy_image
from common.errors import DataError
from common.media.values import encode_image
from common.seeding import rng

TABLE, IMAGES = "meta.tsv", "images_96.zip"
COLUMNS = {"id", "masked", "brand", "articleType", "split"}
PARTS = {"train": "train", "val": "train", "test": "test"}
"""The part for each value of `split`. `val` is training data, because sites hold out their own validation examples."""

Row = dict[str, str]


class Fashion(DataSet):
    """Each natural client has certain brands. The options for noise, pixels and dropped words make one modality worse
    than the other."""

    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    licence: ClassVar[str] = "MIT (Fashion Product Images)"
    folders: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str
    """The folder with meta.tsv and images_96.zip."""
    min_per_class: int = Field(50, ge=1)
    """Minimum number of training examples of a class. Classes with fewer are left out of both parts."""
    image_snr_db: float | None = None
    """Signal-to-noise ratio in dB of the noise that is added to the images. `null`: no noise."""
    image_pixels: int | None = Field(None, ge=1)
    """Pixels per side after each image is reduced. `null`: the original size."""
    text_drop: float = Field(0.0, ge=0, le=1)
    """Probability that a word of the text is left out. A text may lose all its words."""

    @property
    def classes(self) -> list[str]:
        """The types of article with enough training examples, in alphabetical order."""
        return self._classes(self._rows())

    def examples(self, part: str, seed: int) -> list[Example]:
        """The products of a part. A training image with the same bytes as a test image is left out."""
        rows = self._rows()
        known = set(self._classes(rows))
        chosen = [row for row in rows if PARTS[row["split"]] == part and row["articleType"] in known]
        images = _read_images(Path(self.folder) / IMAGES, [row["id"] for row in chosen])
        return [self._example(row, images, seed) for row in chosen]

    def _rows(self) -> list[Row]:
        rows = _read_table(Path(self.folder) / TABLE)
        prints = _fingerprints(Path(self.folder) / IMAGES, [row["id"] for row in rows])
        tested = {prints.get(row["id"]) for row in rows if PARTS[row["split"]] == "test"} - {None}
        return [row for row in rows if PARTS[row["split"]] == "test" or prints.get(row["id"]) not in tested]

    def _classes(self, rows: list[Row]) -> list[str]:
        counts = Counter(row["articleType"] for row in rows if PARTS[row["split"]] == "train")
        return sorted(name for name, count in counts.items() if count >= self.min_per_class)

    def _example(self, row: Row, images: Mapping[str, bytes], seed: int) -> Example:
        keep = rng(seed, "text", row["id"]).random(len(row["masked"].split())) >= self.text_drop
        text = " ".join(word for word, kept in zip(row["masked"].split(), keep, strict=True) if kept)
        media = {"image": self._image(row["id"], images, seed), "text": Media.text(text)}
        return Example(row["id"], row["articleType"], media, row["brand"])

    def _image(self, name: str, images: Mapping[str, bytes], seed: int) -> Media:
        """The unchanged JPEG, or a PNG with noise or fewer pixels."""

        def jpg() -> bytes:
            if name not in images:
                raise ValueError(f"{IMAGES} has no readable {name}.jpg")
            return images[name]

        def png() -> bytes:
            pixels = np.asarray(Image.open(io.BytesIO(jpg())).convert("RGB"))
            return encode_image(noisy_image(pixels, self.image_pixels, self.image_snr_db, rng(seed, "image", name)))

        return Media(jpg, ".jpg") if self.image_snr_db is None and self.image_pixels is None else Media(png, ".png")


def _read_table(path: Path) -> list[Row]:
    try:
        text = path.read_text(encoding="utf-8")
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", quoting=csv.QUOTE_NONE)
        rows = [dict(row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"fashion: {path} cannot be read: {error}") from None
    if missing := COLUMNS - set(reader.fieldnames or []):
        raise DataError(f"fashion: {path} has no column {', '.join(sorted(missing))}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values() or row["split"] not in PARTS:
            raise DataError(f"fashion: {path}, line {number}: not a product whose split is one of {', '.join(PARTS)}")
    return rows


def _fingerprints(path: Path, names: list[str]) -> dict[str, tuple[int, int]]:
    """The checksum and size of each image, by id. The archive's directory contains them, so equal images are found
    without reading the images."""
    try:
        with zipfile.ZipFile(path) as archive:
            held = {info.filename: (info.CRC, info.file_size) for info in archive.infolist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"fashion: {path} cannot be read: {error}") from None
    return {name: held[f"{name}.jpg"] for name in names if f"{name}.jpg" in held}


def _read_images(path: Path, names: list[str]) -> dict[str, bytes]:
    """The images by id, without absent or damaged images. Raises DataError when the archive itself is damaged."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with suppress(KeyError, EOFError, zipfile.BadZipFile, zlib.error):
                    found[name] = archive.read(f"{name}.jpg")
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"fashion: {path} cannot be read: {error}") from None
    return found
