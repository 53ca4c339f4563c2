"""Reads frames and a mono recording from video files with PyAV (FFmpeg's libraries; the optional extra "video")."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from common.errors import DataError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

SCALED = 8 / 7
"""The short side of a frame before its middle is cut out, relative to the side of the result: 256 for 224."""
CLOCK = 1e-6
"""Tolerance in seconds for time stamps, which are rounded fractions."""


def require(name: str) -> None:
    """Raises DataError, which names the data set, when PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise DataError(
            f"{name}: decoding video needs PyAV, which is not installed: pip install 'fedmosaic[video]' (or av)"
        ) from None


def spread(fps: float, seconds: float, count: int) -> list[float]:
    """`count` times in seconds, spread over the frames that a clip of `seconds` has at `fps`: every n-th frame,
    starting with the first.

    At 1 fps, 3 frames from 3 s have the times 0, 1, 2; 4 frames from 10 s have the times 0, 2, 4, 6.
    """
    step = max(1, int(seconds * fps) // count)
    return [index * step / fps for index in range(count)]


def read_frames(path: Path, times: Sequence[float], side: int) -> NDArray[np.uint8]:
    """The first frame at or after each time: [len(times), side, side, 3] RGB.

    Times are in seconds after the first frame, in ascending order. If a clip is too short, its last frame is repeated.
    Frames are scaled so that the short side is side * 8 / 7, and then the middle is cut out.

    Raises ValueError when the file cannot be decoded or has no frames.
    """
    with _opened(path) as container:
        if not container.streams.video:
            raise ValueError("no video track")
        chosen: list[NDArray[np.uint8]] = []
        last: VideoFrame | None = None
        for after, last in _timed_frames(container):
            while len(chosen) < len(times) and after >= times[len(chosen)] - CLOCK:
                chosen.append(_middle(last, side))
            if len(chosen) == len(times):
                break
        if last is None:
            raise ValueError("no frames")
        chosen += [_middle(last, side)] * (len(times) - len(chosen))
        return np.stack(chosen)


def read_audio(path: Path, rate: int) -> NDArray[np.float32]:
    """The mono samples [T] of a file's audio track, with `rate` Hz.

    Raises ValueError when the file cannot be decoded or has no audio.
    """
    import av

    with _opened(path) as container:
        if not container.streams.audio:
            raise ValueError("no audio track")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        frames = [*container.decode(container.streams.audio[0]), None]  # None flushes the resampler
        parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
        samples = np.concatenate(parts) if parts else np.zeros(0)
        if samples.size == 0 or not np.isfinite(samples).all():
            raise ValueError("the audio track is empty or not finite")
        return samples.astype(np.float32)


@contextmanager
def _opened(path: Path) -> Iterator["InputContainer"]:
    """The open file. Errors become a ValueError that names the file."""
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"{path.name}: {getattr(error, 'strerror', None) or error}") from None


def _timed_frames(container: "InputContainer") -> Iterator[tuple[float, "VideoFrame"]]:
    """Pairs (seconds after the first frame, frame) in order of time. Frames without a time stamp are left out."""
    first: float | None = None
    for frame in container.decode(container.streams.video[0]):
        if frame.time is not None:
            first = frame.time if first is None else first
            yield frame.time - first, frame


def _middle(frame: "VideoFrame", side: int) -> NDArray[np.uint8]:
    """The middle [side, side, 3] of a frame after its short side is scaled to side * 8 / 7."""
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    factor = round(side * SCALED) / min(picture.size)
    width, height = (max(side, round(length * factor)) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled.crop((left, top, left + side, top + side)))
