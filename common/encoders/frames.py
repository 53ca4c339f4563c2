"""A few frames of a video."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Picture
from pydantic import Field
from torch import Tensor

from common.backbones import Backbone, backbone
from common.data.media import Raw
from common.encoders.base import Encoder, PictureOptions
from common.encoders.image import picture_tensor


class FramesEncoder(Encoder):
    """Each frame as the image encoder has it; the backbone's features are averaged over time (1.8 of docs/methods.md).

    Of a longer video the first frames are taken, of a shorter one the last is repeated.
    """

    def __init__(self, frames: int, size: int, kind: Backbone, width: int, filters: int = 16) -> None:
        super().__init__()
        self.frames, self.size, self.width = frames, size, width
        self.net = backbone(kind, 3, width, filters)

    def prepare(self, raw: Raw) -> Tensor:
        """[T, 3, size, size] of an array [any number of frames, H, W, 3] with values from 0 to 255."""
        if not isinstance(raw, np.ndarray):
            raise ValueError(f"an array of frames is needed, not {type(raw).__name__}")
        if raw.ndim != 4 or raw.shape[3] != 3 or not raw.size:
            raise ValueError(f"frames [T, H, W, 3] are needed, not an array {list(raw.shape)}")
        tensors = [picture_tensor(_picture(pixels), self.size, 3) for pixels in raw[: self.frames]]
        return torch.stack(tensors + tensors[-1:] * (self.frames - len(tensors)))

    def blank(self) -> Tensor:
        """[T, 3, size, size] of zeros."""
        return torch.zeros(self.frames, 3, self.size, self.size)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, T, 3, size, size] -> [B, D]. Batch normalisation sees the frames of all examples together."""
        features: Tensor = self.net(inputs.flatten(0, 1))
        return features.reshape(len(inputs), self.frames, self.width).mean(dim=1)


def _picture(pixels: NDArray[np.float32]) -> Picture.Image:
    return Picture.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


class Frames(PictureOptions):
    """Frames of a video through a backbone that is trained from scratch, their features averaged."""

    frames: int = Field(3, ge=1)
    """How many, T."""

    def build(self) -> FramesEncoder:
        """A new encoder with random weights."""
        return FramesEncoder(self.frames, self.size, self.backbone, self.width, self.filters)
