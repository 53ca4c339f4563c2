"""Video files as a few frames and a mono recording, by PyAV (FFmpeg's libraries; the optional extra "video")."""

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
"""The short side of a frame before the middle is cut out, relative to the side of the cut: 256 for 224."""
CLOCK = 1e-6
"""Seconds by which a time stamp, a fraction, may miss the time that it stands for."""


def require(name: str) -> None:
    """Raise DataError, for the data set of that name, when PyAV is not installed."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise DataError(
            f"{name}: decoding video needs PyAV, which is not installed: pip install 'fedmosaic[video]' (or av)"
        ) from None


def spread(fps: float, seconds: float, count: int) -> list[float]:
    """`count` times spread over the frames that a clip of `seconds` has at `fps`: every n-th of them from the first on.

    At 1 fps, 3 of 3 s are 0, 1, 2 and 4 of 10 s are 0, 2, 4, 6.
    """
    step = max(1, int(seconds * fps) // count)
    return [index * step / fps for index in range(count)]


def read_frames(path: Path, times: Sequence[float], side: int) -> NDArray[np.uint8]:
    """[len(times), side, side, 3] RGB: for each time, in rising order, the first frame at or after it.

    Times are in seconds after the first frame. Where a clip is too short its last frame is repeated. Frames are scaled
    so that the short side is side * 8 / 7 and the middle is cut out.

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
    """[T] mono samples at `rate` Hz of a file's audio track.

    Raises ValueError when the file cannot be decoded or has no audio.
    """
    import av

    with _opened(path) as container:
        if not container.streams.audio:
            raise ValueError("no audio track")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        frames = [*container.decode(container.streams.audio[0]), None]  # None: what the resampler still holds
        parts = [part.to_ndarray()[0] for frame in frames for part in resampler.resample(frame)]
        samples = np.concatenate(parts) if parts else np.zeros(0)
        if samples.size == 0 or not np.isfinite(samples).all():
            raise ValueError("the audio track is empty or not finite")
        return samples.astype(np.float32)


@contextmanager
def _opened(path: Path) -> Iterator["InputContainer"]:
    """The open file; whatever is wrong with it becomes a ValueError that names it."""
    import av

    try:
        with av.open(str(path)) as container:
            yield container
    except (av.FFmpegError, ValueError) as error:
        raise ValueError(f"{path.name}: {getattr(error, 'strerror', None) or error}") from None


def _timed_frames(container: "InputContainer") -> Iterator[tuple[float, "VideoFrame"]]:
    """(seconds after the first frame, frame) in the order of time; frames without a time stamp are left out."""
    first: float | None = None
    for frame in container.decode(container.streams.video[0]):
        if frame.time is not None:
            first = frame.time if first is None else first
            yield frame.time - first, frame


def _middle(frame: "VideoFrame", side: int) -> NDArray[np.uint8]:
    """[side, side, 3]: the middle of a frame whose short side has been scaled to side * 8 / 7."""
    picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
    factor = round(side * SCALED) / min(picture.size)
    width, height = (max(side, round(length * factor)) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    scaled = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(scaled.crop((left, top, left + side, top + side)))
