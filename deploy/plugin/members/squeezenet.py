"""SqueezeNet of torchvision for pictures, pre-trained or from scratch.

F. N. Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016,
https://arxiv.org/abs/1602.07360. The folder of the weights contains torchvision's state dict as `model.safetensors`.
"""

import torch
from PIL import Image
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from common.encoders.base import Tower
from common.encoders.image import pixels_of
from common.encoders.shared.backbones import cells
from common.encoders.shared.pixels import normalised
from common.encoders.shared.tower_options import TowerOptions
from common.errors import ModelError
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GRID, WIDTH = 2, 512


class SqueezeNetTower(Tower):
    """The tokens are the last maps, averaged over 2 x 2 cells. The pooled features are the mean of the maps."""

    def __init__(self, network: nn.Module, size: int) -> None:
        self._network, self.size = network, size

    @property
    def network(self) -> nn.Module:
        """The layers before the classifier."""
        return self._network

    def inputs(self, raw: Raw) -> Tensor:
        """The pixels [3, size, size] uint8."""
        if not isinstance(raw, Image.Image):
            raise ValueError(f"an image is needed, not {type(raw).__name__}")
        return pixels_of(raw, self.size, 3)

    def blank(self) -> Tensor:
        """[3, size, size] of zeros, uint8."""
        return torch.zeros(3, self.size, self.size, dtype=torch.uint8)

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, 4, D] and their mask."""
        maps = self._network(normalised(inputs, MEAN, DEVIATION))
        tokens = cells(maps, GRID).flatten(2).transpose(1, 2)
        return maps.mean((2, 3)), tokens, tokens.new_ones(tokens.shape[:2]).bool()


class SqueezeNet(TowerOptions):
    """Pictures pass through SqueezeNet 1.1."""

    pretrained: str | None = None
    """Name of the weights, see `common.frozen.pretrained`. `null`: random weights, which needs `train: all`."""
    size: int = Field(64, ge=32, le=1024)
    """Pixels per side of a picture."""

    @property
    def starts_pretrained(self) -> bool:
        """Whether there are pre-trained weights."""
        return self.pretrained is not None

    def shape(self) -> tuple[int, int]:
        """512 features and 4 tokens."""
        return WIDTH, GRID**2

    def load(self, weights: bool = True) -> SqueezeNetTower:
        """A new tower. A random network is small enough for processes that only prepare values."""
        whole = squeezenet1_1(weights=None)
        if self.pretrained is not None and weights:
            file = locate(self.pretrained) / "model.safetensors"
            try:
                whole.load_state_dict(load_file(file))
            except (OSError, SafetensorError, RuntimeError) as error:
                raise ModelError(f"{file}: not weights of SqueezeNet 1.1: {error}") from None
        return SqueezeNetTower(whole.features, self.size)

    def described(self) -> str:
        """A text with the options and a hash of the weights."""
        content = "random" if self.pretrained is None else fingerprint(locate(self.pretrained))
        return f"squeezenet size {self.size} {content}"
