"""Networks of the library timm for pictures, pre-trained or from scratch.

Sources: see `common.frozen.timm_models`.
"""

from functools import cached_property

import numpy as np
import torch
from PIL import Image as Picture
from pydantic import Field
from torch import Tensor, nn

from common.encoders.base import Tower
from common.encoders.shared.backbones import cells
from common.encoders.shared.pixels import normalised
from common.encoders.shared.tower_options import PictureTowerOptions
from common.frozen import timm_models
from common.frozen.pretrained import fingerprint, locate
from common.frozen.timm_models import Recipe, padded
from common.media.sounds import Sound
from common.media.values import Raw


class TimmTower(Tower):
    """A network of timm. The pooled features are the input of its classifier. The tokens are its last maps, averaged
    over grid x grid cells."""

    def __init__(self, recipe: Recipe, network: nn.Module | None, grid: int, crop: bool) -> None:
        self.recipe, self._network, self.grid, self.crop = recipe, network, grid, crop
        self.width = max(timm_models.widths(recipe))

    @property
    def network(self) -> nn.Module:
        """The model of timm."""
        assert self._network is not None
        return self._network

    def inputs(self, raw: Raw) -> Tensor:
        """The pixels [C, H, W] uint8."""
        if not isinstance(raw, Picture.Image):
            hint = "; timm-spectrogram reads recordings" if isinstance(raw, Sound) else ""
            raise ValueError(f"an image is needed, not {type(raw).__name__}{hint}")
        (height, width), channels = self.recipe.size, self.recipe.channels
        picture = raw.convert("L" if channels == 1 else "RGB")
        if self.crop:
            picture = timm_models.cut(self.recipe)(picture)
        else:
            picture = picture.resize((width, height), timm_models.FILTERS[self.recipe.interpolation])
        return torch.from_numpy(np.array(picture)).reshape(height, width, channels).permute(2, 0, 1).contiguous()

    def blank(self) -> Tensor:
        """[C, H, W] of zeros, uint8."""
        return torch.zeros(self.recipe.channels, *self.recipe.size, dtype=torch.uint8)

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, grid * grid, D] and their mask. The narrower of the two is padded with
        zeros."""
        return self.of_values(normalised(inputs, self.recipe.mean, self.recipe.deviation))

    def of_values(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for normalised values [B, C, H, W] float32."""
        pooled, maps = timm_models.features(self.network, values)
        tokens = cells(maps, self.grid).flatten(2).transpose(1, 2)
        return padded(pooled, self.width), padded(tokens, self.width), tokens.new_ones(tokens.shape[:2]).bool()


class Timm(PictureTowerOptions):
    """Pictures pass through a network of timm."""

    model: str | None = None
    """timm's name of the architecture, e.g. mobilenetv2_100 or vit_base_patch16_224. `null`: the one that the folder of
    the weights names."""
    pretrained: str | None = None
    """Name of pre-trained weights, see `common.frozen.pretrained`. The folder's config.json determines size, mean,
    standard deviation, interpolation and channels of the pictures. `null`: random weights, which needs `train: all`."""
    size: int | None = Field(None, ge=8, le=timm_models.LARGEST_SIDE)
    """Pixels per side of a picture. `null`: as the weights were trained."""
    crop: bool = False
    """Whether the borders of a picture are cut off as in the evaluation of the weights. `false`: the whole picture is
    resized, so that nothing at its border is lost."""
    grid: int = Field(4, ge=1, le=64)
    """Cells per side of the picture. Each token is the mean over one of grid x grid cells."""

    @property
    def starts_pretrained(self) -> bool:
        """Whether there are pre-trained weights."""
        return self.pretrained is not None

    @cached_property
    def recipe(self) -> Recipe:
        """How the network is made.

        Raises ModelError.
        """
        folder = None if self.pretrained is None else locate(self.pretrained)
        found = timm_models.recipe(self.model, folder)
        return timm_models.fitted(found, None if self.size is None else (self.size, self.size))

    def shape(self) -> tuple[int, int]:
        """The width of the features, and grid * grid tokens."""
        return max(timm_models.widths(self.recipe)), self.grid**2

    def load(self, weights: bool = True) -> TimmTower:
        """A new tower."""
        network = timm_models.network(self.recipe) if weights else None
        return TimmTower(self.recipe, network, self.grid, self.crop)

    def described(self) -> str:
        """A text with the options and a hash of the model's folder, which contains weights and preprocessing."""
        content = "random" if self.pretrained is None else f"{self.pretrained} {fingerprint(locate(self.pretrained))}"
        return f"timm {self.model} size {self.size} crop {self.crop} grid {self.grid} {content}"
