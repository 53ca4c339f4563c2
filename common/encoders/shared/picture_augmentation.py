"""Random variants of pictures."""

from collections.abc import Callable
from functools import lru_cache

from pydantic import Field
from torch import Tensor, nn

from common.config.component import Options


class PictureAugmentation(Options):
    """Random variants of pictures in training: a crop, a flip, and then changes of the colours in random order. All
    frames of a video change in the same way."""

    crop: float | None = Field(None, gt=0, le=1)
    """Smallest share of a picture's area in a random crop. The crop has an aspect ratio from 3/4 to 4/3 and is resized
    to the size of the picture. `null`: no crop."""
    flip: bool = False
    """Whether a picture is mirrored with a probability of 1/2: left becomes right."""
    brightness: float = Field(0.0, ge=0, le=1)
    """Largest change of the factor for all pixels. With 0.4, the factor is from 0.6 to 1.4."""
    contrast: float = Field(0.0, ge=0, le=1)
    """Largest change of the factor for the pixels' distances from the mean grey of the picture."""
    saturation: float = Field(0.0, ge=0, le=1)
    """Largest change of the factor for the pixels' distances from their own grey. Only for colour pictures."""
    hue: float = Field(0.0, ge=0, le=0.5)
    """Largest turn of the colour wheel. 0.5 is half a turn. Only for colour pictures."""


@lru_cache(maxsize=8)
def picture_transform(options: PictureAugmentation, size: int | tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """The function from pixels [..., C, H, W] uint8 to a random variant. size: (H, W), or H for squares. It draws from
    torch's global CPU generator."""
    from torchvision.transforms import v2  # here, because this import takes longer than all others together

    steps: list[nn.Module] = []
    if options.crop is not None:
        steps.append(v2.RandomResizedCrop(size, scale=(options.crop, 1.0)))
    if options.flip:
        steps.append(v2.RandomHorizontalFlip())
    strengths = (options.brightness, options.contrast, options.saturation, options.hue)
    if any(strengths):
        steps.append(v2.ColorJitter(*strengths))
    return nn.Sequential(*steps)
