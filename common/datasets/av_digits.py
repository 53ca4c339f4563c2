"""av-digits: MNIST images paired with recordings of the Free Spoken Digit Dataset, read from their original layouts.

Images: Y. LeCun, C. Cortes, C. J. C. Burges, MNIST; writers from C. Yadav, L. Bottou, "Cold Case: the Lost MNIST
Digits", NeurIPS 2019 (QMNIST). Recordings: Z. Jackson et al., Free Spoken Digit Dataset; takes 0 to 4 are the test
part.
"""

import gzip
import re
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.base import DataSet, find_folder, pair_by_label
from common.datasets.shared.degrade import noisy_image, noisy_sound
from common.errors import DataError
from common.media.values import encode_image, encode_sound
from common.seeding import rng

NAME = "av-digits"
TEST_TAKES = 5
RECORDING = re.compile(r"(\d)_(\w+)_(\d+)\.wav")


class AvDigits(DataSet):
    """The options for noise and pixels make one modality worse than the other."""

    modalities: ClassVar[tuple[str, ...]] = ("audio", "image")
    licence: ClassVar[str] = "images CC BY-SA 3.0 (MNIST); recordings CC BY-SA 4.0 (FSDD)"
    folders: ClassVar[tuple[str, ...]] = ("mnist", "fsdd")

    mnist: str
    """The folder with the idx files (plain or .gz; the folder above torchvision's MNIST/raw also works). For
    `group: writer` it also needs writers.npz."""
    fsdd: str
    """The folder with the recordings, or the root of their repository."""
    group: Literal["speaker", "writer"] = "speaker"
    """The natural clients: one per speaker or one per writer."""
    audio_snr_db: float | None = None
    """Signal-to-noise ratio in dB of the noise that is added to the recordings. `null`: no noise."""
    image_snr_db: float | None = None
    """Signal-to-noise ratio in dB of the noise that is added to the images. `null`: no noise."""
    image_pixels: int = Field(28, ge=1, le=28)
    """Pixels per side after each image is reduced. 28: the original size."""
    test_images: int = Field(1, ge=1)
    """Number of test images for each test recording. More images make the test score more precise."""

    @property
    def classes(self) -> list[str]:
        """The digits."""
        return [str(digit) for digit in range(10)]

    def examples(self, part: str, seed: int) -> list[Example]:
        """Pairs of an image and a recording of the same digit. Each recording is used once, or `test_images` times in
        the test part."""
        pixels, labels = _read_mnist(find_folder(NAME, self.mnist, ["", "raw", "MNIST/raw"], "train-images*"), part)
        writers = _writers(Path(self.mnist), part, len(labels)) if self.group == "writer" else None
        images = [(str(label), index) for index, label in enumerate(labels.tolist())]
        takes = _recordings(find_folder(NAME, self.fsdd, ["", "recordings"], "*.wav"), part)
        takes *= self.test_images if part == "test" else 1
        examples = []
        for label, index, path in pair_by_label(images, takes, seed, part):
            owner = path.stem.split("_")[1] if writers is None else f"writer-{writers[index]}"
            examples.append(self._example(part, seed, label, index, pixels[index], path, owner))
        return examples

    def _example(
        self, part: str, seed: int, label: str, index: int, pixels: NDArray[np.uint8], path: Path, owner: str
    ) -> Example:
        name = f"{part}-{path.stem}-{index}"

        def png() -> bytes:
            return encode_image(noisy_image(pixels, self.image_pixels, self.image_snr_db, rng(seed, "image", name)))

        def wav() -> bytes:
            samples, rate = soundfile.read(path, dtype="float32")
            return encode_sound(noisy_sound(samples, self.audio_snr_db, rng(seed, "audio", name)), rate)

        return Example(name, label, {"audio": Media(wav, ".wav"), "image": Media(png, ".png")}, owner)


def _read_mnist(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    prefix = "train" if part == "train" else "t10k"
    pixels, labels = (_idx(_one(folder, f"{prefix}*{kind}*ubyte*")) for kind in ("images", "labels"))
    if pixels.ndim != 3 or labels.ndim != 1 or len(pixels) != len(labels):
        raise DataError(
            f"av-digits: images {pixels.shape} and labels {labels.shape} in {folder} do not belong together"
        )
    return pixels, labels


def _one(folder: Path, pattern: str) -> Path:
    if found := sorted(folder.glob(pattern)):
        return found[0]
    raise DataError(f"av-digits: no {pattern} in {folder}")


def _idx(path: Path) -> NDArray[np.uint8]:
    """The array in an idx file of bytes. The file contains 0, 0, type 8, the number of dimensions, the dimensions
    (big-endian) and the values."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise DataError(f"av-digits: {path} cannot be read: {error}") from None
    if len(data) < 4 or data[:3] != b"\0\0\x08":
        raise DataError(f"av-digits: {path} is not an idx file of bytes")
    shape = np.frombuffer(data, ">u4", count=data[3], offset=4) if len(data) >= 4 + 4 * data[3] else np.zeros(0)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]) if shape.size else np.zeros(0, np.uint8)
    if not shape.size or values.size != int(np.prod(shape.astype(np.int64))):
        raise DataError(f"av-digits: {path} is truncated: its size does not match its header")
    return values.reshape([int(n) for n in shape])


def _writers(folder: Path, part: str, count: int) -> NDArray[Any]:
    path = folder / "writers.npz"
    try:
        table = np.load(path, allow_pickle=False)
        writers = table[f"{part}_writer"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"av-digits: writer ids of the {part} part cannot be read from {path}: {error}") from None
    if len(writers) < count:
        raise DataError(f"av-digits: {path} has {len(writers)} writers for {count} images")
    return np.asarray(writers)


def _recordings(folder: Path, part: str) -> list[tuple[str, Any]]:
    found = []
    for path in sorted(folder.glob("*.wav")):
        if (match := RECORDING.fullmatch(path.name)) and (int(match[3]) < TEST_TAKES) == (part == "test"):
            found.append((match[1], path))
    if not found:
        raise DataError(f"av-digits: no recordings of the {part} part in {folder}")
    return found
