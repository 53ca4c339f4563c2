"""Files of a shard as raw values, before any encoder's preprocessing."""

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"}
SOUNDS = {".wav", ".flac", ".ogg", ".mp3"}
ARRAYS = {".npy"}
TEXTS = {".txt"}
KNOWN = IMAGES | SOUNDS | ARRAYS | TEXTS
"""The endings of the files that `read` reads."""


@dataclass(frozen=True)
class Sound:
    """A recording: samples [T, channels] in -1..1 and its rate in Hz."""

    samples: NDArray[np.float32]
    rate: int


Raw = Sound | Image.Image | NDArray[np.float32] | str
"""What `read` gives: a sound, an image, an array [..] or a text."""


@dataclass(frozen=True)
class Value:
    """Where the value of one modality of one example is: a text itself, or a file."""

    source: str | Path
    generated: bool = False

    def read(self) -> Raw:
        """The value.

        Raises ValueError when the file cannot be decoded or its kind is unknown.
        """
        return self.source if isinstance(self.source, str) else read(self.source)

    def stamp(self, folder: Path) -> list[str | int]:
        """What tells this value from another one without reading the file: the text, or name, size and time of change
        of a file below `folder`."""
        if isinstance(self.source, str):
            return [self.source]
        try:
            about = self.source.stat()
        except OSError:
            return [str(self.source), -1]
        return [os.path.relpath(self.source, folder.resolve()), about.st_size, about.st_mtime_ns]


def read(path: Path) -> Raw:
    """The content of a file, decided by its suffix.

    Raises ValueError when the file cannot be decoded or its kind is unknown.
    """
    kind = path.suffix.lower()
    try:
        if kind in SOUNDS:
            samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
            return _finite_sound(samples, rate)
        if kind in IMAGES:
            with Image.open(path) as image:
                image.load()
                return image.copy()
        if kind in ARRAYS:
            array: NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32)
            if array.size == 0 or not np.isfinite(array).all():
                raise ValueError("empty or not finite")
            return array
        if kind in TEXTS:
            return path.read_text(encoding="utf-8")
    except (OSError, ValueError, EOFError, SyntaxError, RuntimeError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path.name}: {error}") from error
    raise ValueError(f"{path.name}: files ending in {kind or 'nothing'} are not known")


def _finite_sound(samples: NDArray[np.float32], rate: int) -> Sound:
    if samples.size == 0 or not np.isfinite(samples).all():
        raise ValueError("the recording is empty or not finite")
    return Sound(samples, rate)


def encode_sound(samples: NDArray[np.float32], rate: int) -> bytes:
    """16-bit mono WAV of samples [T] in -1..1."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """PNG of pixels [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_array(array: NDArray[Any]) -> bytes:
    """A .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
