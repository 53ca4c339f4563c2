"""Small pictures of a shard's values."""

import io
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from scipy.signal import spectrogram

from common.data.observation import is_frames, measured
from common.media.series import Series
from common.media.sounds import Sound
from common.media.table_row import TableRow
from common.media.values import Raw

SIDE = 160
"""Pixels of the longer side of a thumbnail."""
SMALL = 48
"""Largest size of a picture that is stored as PNG, in pixels."""
FRAMES, FRAME_SIDE = 4, 96
LONGEST = 10.0
"""Seconds of a recording that are drawn."""
WINDOW, QUIETEST = 256, 80.0
"""Samples per window of a spectrogram; range of its colours below the loudest value, in decibels."""
SAMPLES, CHANNELS = 2000, 8
"""The maximum numbers of samples and of channels of a signal that are drawn."""
COLOURS = 64
"""Number of colours of a plot; a small number keeps the page small."""
LETTERS = 240
"""The maximum number of letters of a text that are shown."""
PLOT = {"font.size": 7, "axes.linewidth": 0.5, "lines.linewidth": 0.9, "text.parse_math": False}


def draw(raw: Raw) -> Image.Image | str:
    """A picture of a value, or the beginning of a text."""
    if isinstance(raw, str):
        return raw if len(raw) <= LETTERS else raw[: LETTERS - 1] + "…"
    if isinstance(raw, Image.Image):
        return thumbnail(raw, SIDE)
    if isinstance(raw, Sound):
        return _sound(raw)
    if isinstance(raw, Series):
        return draw(raw.values)
    if isinstance(raw, TableRow):
        return draw(", ".join(f"{name} {cell}" for name, cell in raw.cells.items()))
    if is_frames(raw):
        return _strip(raw)
    return _signal(raw) if raw.ndim in (1, 2) else measured(raw)[0]


def encoded(picture: Image.Image) -> tuple[str, bytes]:
    """The media type and the bytes: JPEG for photographs, PNG for small pictures and plots."""
    buffer = io.BytesIO()
    if picture.mode == "P" or max(picture.size) <= SMALL:
        picture.save(buffer, "PNG", optimize=True)
        return "image/png", buffer.getvalue()
    picture.save(buffer, "JPEG", quality=80)
    return "image/jpeg", buffer.getvalue()


def thumbnail(picture: Image.Image, side: int) -> Image.Image:
    """The picture in colour, scaled down if it is larger than `side`."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    return small


def _strip(frames: NDArray[np.float32]) -> Image.Image:
    """A few frames, from the first to the last, side by side."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
    pixels = np.clip(frames[chosen], 0, 255).astype(np.uint8)
    small = [thumbnail(Image.fromarray(frame), FRAME_SIDE) for frame in pixels]
    strip = Image.new("RGB", (sum(frame.width + 2 for frame in small) - 2, small[0].height), "white")
    for index, frame in enumerate(small):
        strip.paste(frame, (index * (frame.width + 2), 0))
    return strip


def _sound(sound: Sound) -> Image.Image:
    """The spectrogram of the beginning, with mixed channels: decibels by time and frequency."""
    samples = sound.mono()[: round(LONGEST * sound.rate)]
    window = min(WINDOW, len(samples))
    _, _, power = spectrogram(samples, sound.rate, nperseg=window, noverlap=window // 2, detrend=False)
    level = 10 * np.log10(power + 1e-12)
    figure, axes = _axes("seconds", "kHz")
    extent = (0.0, len(samples) / sound.rate, 0.0, sound.rate / 2000)
    shades = {"cmap": "magma", "vmin": level.max() - QUIETEST, "vmax": level.max()}
    axes.imshow(level, origin="lower", aspect="auto", extent=extent, **shades)
    return _painted(figure)


def _signal(array: NDArray[np.float32]) -> Image.Image:
    """The first samples of the first channels of [T] or [T, C]."""
    figure, axes = _axes("samples", "")
    axes.plot(array.reshape(len(array), -1)[:SAMPLES, :CHANNELS])
    axes.margins(x=0)
    axes.grid(True, linewidth=0.4, color="#e4e7eb")
    return _painted(figure)


def _axes(along: str, up: str) -> tuple[Figure, Any]:
    with style.context(PLOT):
        figure = Figure(figsize=(2.4, 1.4), dpi=130, layout="constrained")
        axes = figure.subplots()
        axes.set_xlabel(along)
        axes.set_ylabel(up)
    return figure, axes


def _painted(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    with style.context(PLOT):
        figure.savefig(buffer, format="png")
    with Image.open(buffer) as picture:
        return picture.convert("RGB").quantize(COLOURS)
