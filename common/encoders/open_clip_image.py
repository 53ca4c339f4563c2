"""The image tower of a CLIP or CoCa model of open_clip."""

import numpy as np
import torch
from PIL import Image as Picture
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Tower
from common.encoders.shared.backbones import cells
from common.encoders.shared.pixels import normalised
from common.encoders.shared.tower_options import PictureTowerOptions
from common.errors import ModelError
from common.frozen.model_door import open_clip_config
from common.frozen.open_clip_models import OpenClip, load_open_clip, new_open_clip
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw


class OpenClipImageTower(Tower):
    """The pooled features are in the space that images and texts share. The tokens are the outputs of the last block
    for the patches, averaged over grid x grid cells."""

    def __init__(self, loaded: OpenClip, grid: int, width: int) -> None:
        self.loaded, self.grid, self.width = loaded, grid, width
        self._network = loaded.image_network

    @property
    def network(self) -> nn.Module:
        """The image tower."""
        network: nn.Module = self._network
        return network

    def inputs(self, raw: Raw) -> Tensor:
        """The pixels [3, H, W] uint8."""
        if not isinstance(raw, Picture.Image):
            raise ValueError(f"an image is needed, not {type(raw).__name__}")
        return torch.from_numpy(np.array(self.loaded.resized(raw))).permute(2, 0, 1).contiguous()

    def blank(self) -> Tensor:
        """[3, H, W] of zeros, uint8."""
        return torch.zeros(3, *np.broadcast_to(self._network.image_size, 2), dtype=torch.uint8)

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, grid * grid, D] and their mask. The narrower of the two is padded with
        zeros."""
        found = self._network.forward_intermediates(
            normalised(inputs, *self.loaded.scale), indices=1, normalize_intermediates=True
        )
        patches = cells(found["image_intermediates"][-1], self.grid).flatten(2).transpose(1, 2)
        tokens = F.pad(patches, (0, self.width - patches.shape[-1]))
        pooled = F.pad(found["image_features"], (0, self.width - found["image_features"].shape[-1]))
        return pooled, tokens, tokens.new_ones(tokens.shape[:2]).bool()


class OpenClipImage(PictureTowerOptions):
    """Pictures pass through the image tower of a pre-trained CLIP or CoCa model of open_clip."""

    model: str = "birds-coca"
    """Name of a pre-trained model, see `common.frozen.pretrained`."""
    grid: int = Field(4, ge=1, le=64)
    """Cells per side of the picture. Each token is the mean over one of grid x grid cells."""

    def shape(self) -> tuple[int, int]:
        """The larger of the widths of the shared space and of the tower, and grid * grid tokens."""
        folder = locate(self.model)
        config = open_clip_config(folder)
        try:
            return max(config["embed_dim"], config["vision_cfg"]["width"]), self.grid**2
        except (KeyError, TypeError):
            raise ModelError(f"{folder}: its image tower is not a vision transformer of open_clip") from None

    def load(self, weights: bool = True) -> OpenClipImageTower:
        """A new tower."""
        return OpenClipImageTower(new_open_clip(self.model, weights), self.grid, self.shape()[0])

    def kept(self) -> OpenClipImageTower:
        """A tower of the model that the process keeps, which also serves texts and completers."""
        return OpenClipImageTower(load_open_clip(self.model), self.grid, self.shape()[0])

    def described(self) -> str:
        """A text with the grid and a hash of the model's folder, which contains weights and preprocessing."""
        return f"open-clip-image grid {self.grid} {fingerprint(locate(self.model))}"
