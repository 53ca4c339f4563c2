"""Files of a shard as raw values, before any encoder's preprocessing."""

import codecs
import io
import os
import struct
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from common.media.contents import ARRAY, PICTURE, RECORDING, actual
from common.media.pictures import plain, read_picture
from common.media.series import Series, read_array, real_array
from common.media.sounds import Sound, read_sound

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif"}
SOUNDS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"}
ARRAYS = {".npy"}
TEXTS = {".txt"}
FAMILIES = {PICTURE: IMAGES, RECORDING: SOUNDS, ARRAY: ARRAYS}
KNOWN = IMAGES | SOUNDS | ARRAYS | TEXTS
"""The endings of the files that `read` reads."""


Raw = Sound | Image.Image | Series | NDArray[Any] | str
"""What `read` gives: a sound; a picture, in mode L or RGB (`common.media.pictures`); an array [...] of whole numbers or
of float32, all finite; a text, in Unicode's form NFC. A `Series` is an array whose rate is known."""


@dataclass(frozen=True)
class Value:
    """Where the value of one modality of one example is: a text itself, or a file.

    rate: of an array, which does not say it itself, if the shard does.
    """

    source: str | Path
    generated: bool = False
    rate: float | None = None

    def read(self) -> Raw:
        """The value.

        Raises ValueError when the file cannot be decoded or its kind is unknown.
        """
        if isinstance(self.source, str):
            return _text(self.source)
        raw = read(self.source)
        return Series(raw, self.rate) if self.rate and isinstance(raw, np.ndarray) else raw

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

    Raises ValueError, with the file's name and what it is instead if that can be told, when it cannot be decoded or its
    kind is unknown.
    """
    kind = path.suffix.lower()
    try:
        return _decoded(path, kind)
    except (
        *(OSError, ValueError, EOFError, SyntaxError, RuntimeError),
        *(MemoryError, OverflowError, struct.error, Image.DecompressionBombError),
    ) as error:
        said = str(error).replace(str(path), path.name)
        reason = said if isinstance(error, OSError) and error.errno else _reason(path, said)
        raise ValueError(f"{path.name}: {reason}") from error


def checked(raw: Raw) -> Raw:
    """A value that comes from elsewhere than `read`, e.g. a picture that a program made, as `read` would give it.

    Raises ValueError.
    """
    if isinstance(raw, Image.Image):
        return plain(raw)
    if isinstance(raw, np.ndarray):
        return real_array(raw)
    return _text(raw) if isinstance(raw, str) else raw


def _decoded(path: Path, kind: str) -> Raw:
    if kind in SOUNDS:
        return read_sound(path)
    if kind in IMAGES:
        return read_picture(path)
    if kind in ARRAYS:
        return real_array(read_array(path))
    if kind in TEXTS:
        return _text(_characters(path.read_bytes()))
    raise ValueError(f"files ending in {kind or 'nothing'} are not known")


def _reason(path: Path, said: str) -> str:
    """What a file that cannot be decoded is, else what the decoder said."""
    family = next((family for family, endings in FAMILIES.items() if path.suffix.lower() in endings), None)
    what = actual(path, family) if family else None
    return f"it is {what}" if what else said


def _characters(content: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 if it begins with that mark: other encodings look alike."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text (of Windows perhaps, cp1252): save it as UTF-8") from None


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return unicodedata.normalize("NFC", text)


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
