"""Clips with sound and video."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from common.data.shard import Media
from common.datasets.base import DataSet
from common.media.values import encode_array
from common.media.video import read_frames, spread


class Clips(DataSet):
    """Clips of sound and video."""

    modalities: ClassVar[tuple[str, ...]] = ("audio", "video")
    folders: ClassVar[tuple[str, ...]] = ("folder",)

    folder: str
    """The folder with the data set."""
    frames: int = Field(3, ge=1)
    """Number of frames per clip, spread evenly over the frames that the clip has at `fps`."""
    fps: float = Field(1.0, gt=0)
    """Frames per second from which `frames` frames are chosen."""
    side: int = Field(224, ge=8)
    """Pixels per side of a frame."""

    def video(self, path: Path, seconds: float) -> Media:
        """The frames of a video with a length of `seconds`."""
        times = spread(self.fps, seconds, self.frames)
        return Media(lambda: encode_array(read_frames(path, times, self.side)), ".npy")
