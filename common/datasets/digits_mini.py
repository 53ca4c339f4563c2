"""digits-mini: scikit-learn's handwritten digits paired with digits spoken by espeak-ng. It needs no network.

Images: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998, 8 x 8 pixels, as shipped with
scikit-learn. Clips: made by `assets/make_digits_mini.py`. No voice or image of the test part is in the training part.
"""

import io
import json
import zipfile
from functools import cache
from importlib.resources import files
from typing import Any, ClassVar

import numpy as np
import soundfile
from numpy.typing import NDArray
from pydantic import Field

from common.data.shard import Example, Media
from common.datasets.base import DataSet, pair_by_label
from common.datasets.shared.degrade import noisy_image, noisy_sound
from common.media.values import encode_image, encode_sound
from common.seeding import rng

TEST_SHARE = 0.2


class DigitsMini(DataSet):
    """The options make one modality worse than the other."""

    modalities: ClassVar[tuple[str, ...]] = ("audio", "image")
    licence: ClassVar[str] = "images CC BY 4.0 (UCI); clips Apache-2.0"

    audio_snr_db: float | None = None
    """Signal-to-noise ratio in dB of the noise that is added to the recordings. `null`: no noise."""
    image_snr_db: float | None = None
    """Signal-to-noise ratio in dB of the noise that is added to the images. `null`: no noise."""
    image_pixels: int = Field(8, ge=1, le=8)
    """Pixels per side after each image is reduced. 8: the original size."""

    @property
    def classes(self) -> list[str]:
        """The digits."""
        return [str(digit) for digit in range(10)]

    def examples(self, part: str, seed: int) -> list[Example]:
        """Pairs of an image and a clip of the same digit. The natural group is the voice."""
        pairs = pair_by_label(_images(part), _clips(part), seed, part)
        return [self._example(part, seed, *pair) for pair in pairs]

    def _example(self, part: str, seed: int, label: str, image: Any, clip: Any) -> Example:
        name = f"{part}-{label}-{image}-{clip['file_name'].split('/')[-1].split('.')[0]}".replace("+", "_")

        def png() -> bytes:
            pixels = np.rint(load_pixels()[image] * (255 / 16)).astype(np.uint8)
            return encode_image(noisy_image(pixels, self.image_pixels, self.image_snr_db, rng(seed, "image", name)))

        def wav() -> bytes:
            samples, rate = soundfile.read(io.BytesIO(_read(clip["file_name"])), dtype="float32")
            return encode_sound(noisy_sound(samples, self.audio_snr_db, rng(seed, "audio", name)), rate)

        return Example(name, label, {"audio": Media(wav, ".wav"), "image": Media(png, ".png")}, clip["voice"])


@cache
def _archive() -> zipfile.ZipFile:
    """The archive, kept open in memory, because reading its list of files takes longer than reading a clip."""
    return zipfile.ZipFile(io.BytesIO(files("common.datasets").joinpath("assets/digits_mini.zip").read_bytes()))


def _read(name: str) -> bytes:
    return _archive().read(name)


@cache
def _digits() -> Any:
    from sklearn.datasets import load_digits  # here, so that a site that only reads the experiment does not load it

    return load_digits()


def load_pixels() -> NDArray[np.float64]:
    """The pixels of all images, [1797, 8, 8], from 0 to 16."""
    return np.asarray(_digits().images)


def _images(part: str) -> list[tuple[str, Any]]:
    """The images of a part. Every fifth image of a digit is a test image."""
    labels = _digits().target
    chosen = []
    for digit in range(10):
        for rank, index in enumerate(np.flatnonzero(labels == digit).tolist()):
            if (rank % round(1 / TEST_SHARE) == 0) == (part == "test"):
                chosen.append((str(digit), index))
    return chosen


def _clips(part: str) -> list[tuple[str, Any]]:
    """The clips of a part. Every fifth voice is a test voice."""
    clips = [json.loads(line) for line in _read("metadata.jsonl").splitlines()]
    voices = sorted({clip["voice"] for clip in clips})
    order = rng(0, "digits-mini voices").permutation(len(voices))
    held_out = {voices[i] for i in order[: round(TEST_SHARE * len(voices))]}
    return [(str(clip["digit"]), clip) for clip in clips if (clip["voice"] in held_out) == (part == "test")]
