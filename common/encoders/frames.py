"""An encoder for videos. It reads a few frames per video."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from pydantic import Field
from torch import Tensor

from common.encoders.base import Encoder, PictureOptions
from common.encoders.image import pixels_of, scaled
from common.encoders.shared.backbones import backbone
from common.encoders.shared.picture_augmentation import picture_transform
from common.media.series import over_time
from common.media.values import Raw


class FramesEncoder(Encoder):
    """Each frame is prepared like a picture of the image encoder. The backbone's features are averaged over time (1.8
    of docs/methods.md).

    If a video is longer, some of its frames are used. If it is shorter, its last frame is repeated.
    """

    def __init__(self, options: "Frames") -> None:
        super().__init__()
        self.options, self.width, self.augmentation = options, options.width, options.augment
        self.net = backbone(options.backbone, 3, options.width, options.filters)

    def prepare(self, raw: Raw) -> Tensor:
        """Pixels [T, 3, size, size] uint8 for an array or a series [any number of frames, H, W, 3] with values from 0
        to 255. Arrays of floating-point numbers may also have values from 0 to 1.

        Raises ValueError for other shapes and values.
        """
        values, rate = over_time(raw, self.options.fps)
        if values.ndim != 4 or values.shape[3] != 3:
            raise ValueError(f"frames [T, H, W, 3] are needed, not an array {list(values.shape)}{_hint(values)}")
        _check_range(values)
        unit = values.dtype.kind == "f" and values.max() <= 1
        chosen = values[self._places(len(values), rate)].astype(np.float32) * (255 if unit else 1)
        return torch.stack([pixels_of(_picture(frame), self.options.size, 3) for frame in chosen])

    def _places(self, count: int, rate: float | None) -> NDArray[np.int64]:
        """The indices of the T frames that are used."""
        wanted = np.arange(self.options.frames, dtype=np.float64)
        if rate is not None and self.options.fps is not None:
            wanted *= rate / self.options.fps
        elif self.options.longer == "spread" and count > self.options.frames:
            wanted = np.linspace(0, count - 1, self.options.frames)
        return np.minimum(np.rint(wanted), count - 1).astype(np.int64)

    def blank(self) -> Tensor:
        """[T, 3, size, size] of zeros, uint8."""
        return torch.zeros(self.options.frames, 3, self.options.size, self.options.size, dtype=torch.uint8)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, 3, size, size] -> [B, D]. Batch normalisation uses the frames of all examples together."""
        features: Tensor = self.net(scaled(inputs.flatten(0, 1)))
        return features.reshape(len(inputs), self.options.frames, self.width).mean(dim=1)

    def augment(self, prepared: Tensor) -> Tensor:
        """[T, 3, size, size] uint8. All frames change in the same way."""
        chosen = self.options.augment
        return prepared if chosen is None else picture_transform(chosen, self.options.size)(prepared)


def _picture(frame: NDArray[np.float32]) -> Picture.Image:
    return Picture.fromarray(np.rint(frame).astype(np.uint8))


def _check_range(values: NDArray[Any]) -> None:
    low, high = values.min(), values.max()
    if low < 0 or high > 255:
        raise ValueError(f"frames with values from 0 to 255 are needed, these values are from {low:g} to {high:g}")


def _hint(values: NDArray[Any]) -> str:
    if values.ndim == 4 and values.shape[1] == 3:
        return "; they seem to be [T, 3, H, W]"
    return "; they seem to be grey" if values.ndim == 3 or values.shape[-1] == 1 else ""


class Frames(PictureOptions):
    """Frames of a video pass through a backbone that is trained from scratch. The frames' features are averaged."""

    frames: int = Field(3, ge=1, le=256)
    """Number of frames T per video."""

    fps: float | None = Field(None, gt=0, le=1000)
    """Frames per second that are taken from the beginning of a video. shard.json must contain the videos' own rate in
    `rates`. `null`: `longer` chooses the frames."""
    longer: Literal["first", "spread"] = "first"
    """Frames that are taken from a video with more than T frames when `fps` is `null`: the first T frames (`first`), or
    T frames evenly spread from the first to the last (`spread`). For a shorter video the last frame is always
    repeated."""

    def build(self) -> FramesEncoder:
        """A new encoder with random weights."""
        return FramesEncoder(self)
