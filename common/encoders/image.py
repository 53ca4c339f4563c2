"""An encoder for images of any size, in grey or colour."""

from typing import Literal, Self

import numpy as np
import torch
from PIL import Image as Picture
from pydantic import model_validator
from torch import Tensor

from common.encoders.base import Encoder, PictureOptions
from common.encoders.shared.backbones import Backbone, backbone
from common.encoders.shared.picture_augmentation import PictureAugmentation, picture_transform
from common.media.values import Raw


def pixels_of(picture: Picture.Image, size: int, channels: int) -> Tensor:
    """The picture as a tensor [C, size, size] uint8, in grey (1 channel) or colour (3 channels)."""
    picture = picture.convert("L" if channels == 1 else "RGB").resize((size, size), Picture.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).reshape(size, size, channels).permute(2, 0, 1).contiguous()


def scaled(pixels: Tensor) -> Tensor:
    """Values from -1 to 1 for pixels from 0 to 255: float32 for uint8, else in the type of the pixels."""
    return pixels / 127.5 - 1


class ImageEncoder(Encoder):
    """Resizes pictures to size x size by bilinear interpolation. The backbone reads the pixels as values from -1 to
    1."""

    augmentation: PictureAugmentation | None

    def __init__(
        self,
        size: int,
        channels: int,
        kind: Backbone,
        width: int,
        filters: int = 16,
        augmentation: PictureAugmentation | None = None,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.width = size, channels, width
        self.augmentation = augmentation
        self.net = backbone(kind, channels, width, filters)

    def prepare(self, raw: Raw) -> Tensor:
        """The pixels [C, size, size] uint8."""
        if not isinstance(raw, Picture.Image):
            raise ValueError(f"an image is needed, not {type(raw).__name__}")
        return pixels_of(raw, self.size, self.channels)

    def blank(self) -> Tensor:
        """[C, size, size] of zeros, uint8."""
        return torch.zeros(self.channels, self.size, self.size, dtype=torch.uint8)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, size, size] -> [B, D]."""
        features: Tensor = self.net(scaled(inputs))
        return features

    def augment(self, prepared: Tensor) -> Tensor:
        """[C, size, size] uint8."""
        return prepared if self.augmentation is None else picture_transform(self.augmentation, self.size)(prepared)


class Image(PictureOptions):
    """Pictures pass through a backbone that is trained from scratch."""

    channels: Literal[1, 3] = 1
    """Colour channels: 1 (grey) or 3 (colour)."""

    @model_validator(mode="after")
    def _colours_exist(self) -> Self:
        if self.channels == 1 and self.augment is not None and (self.augment.saturation or self.augment.hue):
            raise ValueError("augment: grey pictures have no saturation and no hue; set channels to 3 or both to 0")
        return self

    def build(self) -> ImageEncoder:
        """A new encoder with random weights."""
        return ImageEncoder(self.size, self.channels, self.backbone, self.width, self.filters, self.augment)
