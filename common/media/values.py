"""Reads the files of a shard as raw values, before the preprocessing of the encoders."""

import codecs
import io
import os
import struct
import unicodedata
from collections.abc import Mapping
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
from common.media.table_row import TableRow, table_row

IMAGES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff"}
SOUNDS = {".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff"}
ARRAYS = {".npy"}
TEXTS = {".txt"}
FAMILIES = {PICTURE: IMAGES, RECORDING: SOUNDS, ARRAY: ARRAYS}
KNOWN = IMAGES | SOUNDS | ARRAYS | TEXTS
"""The file endings that `read` supports."""


Raw = Sound | Image.Image | Series | NDArray[Any] | TableRow | str
"""The result of `Value.read`: a sound; a picture in mode L or RGB (`common.media.pictures`); a finite array [...] of
integers or float32; a row of a table; a text in Unicode's form NFC. A `Series` is an array with a known rate."""


@dataclass(frozen=True, slots=True)
class Value:
    """The source of the value of one modality of one example: a text, a row of a table, or the path of a file.

    generated: whether a frozen model generated the value. rate: the rate of an array, if shard.json contains it.
    """

    source: str | TableRow | Path
    generated: bool = False
    rate: float | None = None

    def read(self) -> Raw:
        """The value.

        Raises ValueError when the file cannot be decoded or its kind is unknown.
        """
        if isinstance(self.source, str):
            return _text(self.source)
        if isinstance(self.source, TableRow):
            return self.source
        raw = read(self.source)
        return Series(raw, self.rate) if self.rate and isinstance(raw, np.ndarray) else raw

    def stamp(self, folder: Path) -> list[str | int]:
        """An identification of the value that does not require reading its file: the text or row itself, or the name
        relative to `folder`, the size and the modification time of the file."""
        if not isinstance(self.source, Path):
            return [str(self.source)]
        try:
            about = self.source.stat()
        except OSError:
            return [str(self.source), -1]
        return [os.path.relpath(self.source, folder.resolve()), about.st_size, about.st_mtime_ns]


def read(path: Path) -> Raw:
    """The content of a file. The suffix determines the decoder.

    Raises ValueError when the file cannot be decoded or its kind is unknown. The message contains the file's name and,
    if it can be detected, the file's real format.
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


def checked(raw: Raw | Mapping[Any, Any]) -> Raw:
    """A value from another source than `read`, e.g. a picture that a program made, in the form that `read` returns. A
    mapping is a row of a table.

    Raises ValueError.
    """
    if isinstance(raw, Image.Image):
        return plain(raw)
    if isinstance(raw, np.ndarray):
        return real_array(raw)
    if isinstance(raw, Mapping):
        return table_row(raw)
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
    raise ValueError(
        f"files ending in {kind} are not supported" if kind else "files without an ending are not supported"
    )


def _reason(path: Path, said: str) -> str:
    """The real format of a file that cannot be decoded, or else the decoder's message."""
    family = next((family for family, endings in FAMILIES.items() if path.suffix.lower() in endings), None)
    what = actual(path, family or "")
    if family is None:
        return f"{said}; it is {what}" if what else said
    return f"it is {what}" if what else said


def _characters(content: bytes) -> str:
    """The text in the bytes of a file in UTF-8, or in UTF-16 with a byte order mark. Other encodings cannot be
    distinguished and are refused."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text (perhaps cp1252, the encoding of Windows): save it as UTF-8") from None


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError("the text is empty")
    return unicodedata.normalize("NFC", text)


def encode_sound(samples: NDArray[np.float32], rate: int) -> bytes:
    """A 16-bit mono WAV file with samples [T] in -1..1."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def encode_image(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file with pixels [H, W] or [H, W, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def encode_array(array: NDArray[Any]) -> bytes:
    """A .npy file with an array."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
