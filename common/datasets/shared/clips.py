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
    """Where the set lies."""
    frames: int = Field(3, ge=1)
    """How many of a clip, spread over those that it has at `fps`."""
    fps: float = Field(1.0, gt=0)
    """Frames a second."""
    side: int = Field(224, ge=8)
    """Pixels of a frame's side."""

    def video(self, path: Path, seconds: float) -> Media:
        """The frames of a video of that length."""
        times = spread(self.fps, seconds, self.frames)
        return Media(lambda: encode_array(read_frames(path, times, self.side)), ".npy")
