"""Reads pictures and converts them to one form: upright, without transparency, 8 bits per channel, grey or colour."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from common.media.silence import silenced

PLUGINS = BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin, TiffImageFile
"""Importing these modules registers their formats with Pillow."""
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "GIF", "TIFF")
"""Pillow's names of the formats that are read. Pillow reads fifty more; for some of them it starts other programs."""
MOST_BYTES = 280_000_000
"""The maximum size of a decoded picture in memory: 70 million pixels in colour or 280 million in grey."""
LARGEST_SIDE = 4096
"""The maximum side in pixels. A larger picture is reduced by a whole-number factor when it is read, because no encoder
uses as many pixels."""
GREY_MODES = {"1", "L", "LA", "La"}
BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
"""Bytes per decoded pixel by mode; 4 for all other modes."""
BAND = 256
"""Number of rows, after reduction, of a large picture that are converted together. Converting the whole picture at once
would hold several copies of it in memory."""
WHITE = (255, 255, 255, 255)
TOP = 65535
"""The largest value of 16 bits."""
BRIGHTEST, SEVERAL = "brightest", "several"
"""Entries in `info` of a picture that `read_picture` returns: the largest value in the file if it has more than 8 bits
of grey (0 to 65535), and whether the file has more pictures than the first one."""


def read_picture(path: Path) -> Image.Image:
    """The picture in a file, in the form that `plain` returns. For an animation or a file with several pages this is
    the first picture. Its `info` has the entries BRIGHTEST and SEVERAL where they apply, and no others.

    Raises Pillow's exceptions, and ValueError for a picture that is too large to be decoded.
    """
    with opened(path) as picture:
        whole = _full_range(picture)
        seen = plain(whole)
        about: dict[str | tuple[int, int], Any] = {}
        if is_wide(whole):
            about[BRIGHTEST] = int(np.asarray(whole).max())
        if getattr(picture, "is_animated", False):
            about[SEVERAL] = True
        seen.info = about
        return seen


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The first picture in a file, decoded, with the values of the file.

    Raises Pillow's exceptions, and ValueError for a picture that is too large to be decoded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes, which are checked below, and about damaged metadata
        # Pillow maps a file that it opens by its name, and then turns an uncompressed TIFF picture wrongly.
        with path.open("rb") as file, _identified(file) as picture:
            if picture.format == "JPEG":
                picture.draft(None, (LARGEST_SIDE, LARGEST_SIDE))  # decodes at 1/2, 1/4 or 1/8 of the size, not below
            _check_size(picture)
            with silenced() if picture.format == "TIFF" else nullcontext():
                picture.load()
            yield picture


def _identified(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:  # its message contains the description of a Python object
        raise ValueError("cannot identify image file: it has no known format") from None


def is_wide(picture: Image.Image) -> bool:
    """Whether a picture has grey values of more than 8 bits, or floating-point values."""
    return picture.mode == "F" or picture.mode.startswith("I")


def is_white_zero(picture: Image.Image) -> bool:
    """Whether 0 is white in the values of a TIFF file. Pillow inverts the values of 1 to 8 bits, but not wider ones."""
    return (
        isinstance(picture, TiffImageFile) and is_wide(picture) and picture.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == 0
    )


def plain(picture: Image.Image) -> Image.Image:
    """The picture in mode L or RGB, rotated upright by the orientation in the file, on a white background where it is
    transparent. 16-bit values are divided by 257, which maps their full range to the full range of 8 bits.

    Raises ValueError for values with an unknown range (mode F).
    """
    factor = -(-max(picture.size) // LARGEST_SIDE)
    seen = _opaque(picture) if factor == 1 else _reduced(picture, factor)
    if seen is not picture:
        seen.info = picture.info  # contains the orientation
    return ImageOps.exif_transpose(seen)


def narrow_range(brightest: int) -> str:
    """A sentence about pictures of 16 bits whose largest value shows that fewer bits are used; "" for other values."""
    bits = brightest.bit_length()
    if not 0 < bits < 15:
        return ""
    return (
        f"the largest value in pictures of 16 bits is {brightest} of {TOP}, so they are dark. If the values have "
        f"{bits} bits, import the pictures with --window MODALITY=0:{2**bits - 1}"
    )


def _full_range(picture: Image.Image) -> Image.Image:
    """A grey TIFF picture of 9 to 16 bits in the range of 16 bits, with black as 0; other pictures unchanged."""
    if not isinstance(picture, TiffImageFile) or not picture.mode.startswith("I;"):
        return picture
    top = 2 ** min(16, int(picture.tag_v2.get(BITSPERSAMPLE, (16,))[0])) - 1
    if top == TOP and not is_white_zero(picture):
        return picture
    values: NDArray[np.float64] = np.minimum(np.asarray(picture), top) * (TOP / top)
    return Image.fromarray(np.rint(TOP - values if is_white_zero(picture) else values).astype(np.uint16))


def _check_size(picture: Image.Image) -> None:
    pixels = picture.width * picture.height
    if pixels * BYTES.get(picture.mode, 4) > MOST_BYTES:
        raise ValueError(f"too large: {picture.width} x {picture.height} pixels ({pixels / 1e6:.0f} million)")


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture in mode L or RGB, on a white background where it is transparent."""
    if picture.mode == "F":
        raise ValueError(
            "a picture of floating-point values has no known range: save it with 8 or 16 bits, or "
            "name its range when you import it, with --window"
        )
    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    wanted = "L" if picture.mode in GREY_MODES else "RGB"
    if not picture.has_transparency_data:
        return picture if picture.mode == wanted else picture.convert(wanted)
    ground = Image.new("RGBA", picture.size, WHITE)
    ground.alpha_composite(picture.convert("RGBA"))
    return ground.convert(wanted)


def _from_16_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > TOP:
        found = f"values from {values.min()} to {values.max()}"
        raise ValueError(f"{found}, values from 0 to {TOP} are needed: name their range at import, with --window")
    grey = np.rint(values / 257).astype(np.uint8)
    if (transparent := picture.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def _reduced(picture: Image.Image, factor: int) -> Image.Image:
    """The opaque picture, in which each pixel is the mean of factor x factor pixels."""
    bands = [_opaque(_rows(picture, top, top + BAND * factor)).reduce(factor)
             for top in range(0, picture.height, BAND * factor)]  # fmt: skip
    whole = Image.new(bands[0].mode, (bands[0].width, sum(band.height for band in bands)))
    for index, band in enumerate(bands):
        whole.paste(band, (0, index * BAND))
    return whole


def _rows(picture: Image.Image, top: int, bottom: int) -> Image.Image:
    return picture.crop((0, top, picture.width, min(bottom, picture.height)))
