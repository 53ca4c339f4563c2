"""A vision transformer of torchvision.

A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929. The model's folder
contains torchvision's state dict as `model.safetensors`. The sizes of the network are read from this file.
"""

import math
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image as Picture
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import VisionTransformer as Network

from common.encoders.base import Tower
from common.encoders.image import pixels_of
from common.encoders.shared.backbones import cells
from common.encoders.shared.pixels import normalised
from common.encoders.shared.tower_options import PictureTowerOptions
from common.errors import ModelError
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw

WEIGHTS = "model.safetensors"
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's colour channels; torchvision's weights were trained with them."""


class VisionTransformerTower(Tower):
    """The pooled features are the output for the class token. The tokens are the outputs for the patches, averaged over
    grid x grid cells."""

    def __init__(self, network: Any, size: int, grid: int) -> None:
        self._network = network
        self.size, self.grid = size, grid

    @property
    def network(self) -> nn.Module:
        """The model of torchvision."""
        network: nn.Module = self._network
        return network

    def inputs(self, raw: Raw) -> Tensor:
        """The pixels [3, size, size] uint8."""
        if not isinstance(raw, Picture.Image):
            raise ValueError(f"an image is needed, not {type(raw).__name__}")
        return pixels_of(raw, self.size, 3)

    def blank(self) -> Tensor:
        """[3, size, size] of zeros, uint8."""
        return torch.zeros(3, self.size, self.size, dtype=torch.uint8)

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, grid * grid, D] and their mask."""
        return self.of_values(normalised(inputs, MEAN, DEVIATION))

    def of_values(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same for normalised values [B, 3, size, size]."""
        patches = self._network._process_input(values)
        found = self._network.encoder(torch.cat([self._network.class_token.expand(len(values), -1, -1), patches], 1))
        side = math.isqrt(found.shape[1] - 1)
        maps = found[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        tokens = cells(maps, self.grid).flatten(2).transpose(1, 2)
        return found[:, 0], tokens, tokens.new_ones(tokens.shape[:2]).bool()


class VisionTransformer(PictureTowerOptions):
    """Pictures pass through a pre-trained vision transformer (ViT) of torchvision."""

    model: str
    """Name of a pre-trained model, see `common.frozen.pretrained`."""
    heads: int = Field(12, ge=1, le=256)
    """Number of attention heads of the model; 12 for ViT-B."""
    grid: int = Field(4, ge=1, le=64)
    """Cells per side of the picture. Each token is the mean over one of grid x grid cells."""

    def shape(self) -> tuple[int, int]:
        """The width of the network, and grid * grid tokens."""
        return _shape(locate(self.model), "conv_proj.weight")[0], self.grid**2

    def load(self, weights: bool = True) -> VisionTransformerTower:
        """A new tower."""
        folder = locate(self.model)
        patch, places = _shape(folder, "conv_proj.weight")[2], _shape(folder, "encoder.pos_embedding")[1]
        network = _load(folder, self.heads) if weights else None
        return VisionTransformerTower(network, patch * math.isqrt(places - 1), self.grid)

    def described(self) -> str:
        """A text with the options and a hash of the model's folder, which contains the weights."""
        return f"vision-transformer heads {self.heads} grid {self.grid} {fingerprint(locate(self.model))}"


def _shape(folder: Path, name: str) -> list[int]:
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as weights:
            shape: list[int] = weights.get_slice(name).get_shape()
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{folder / WEIGHTS} contains no vision transformer of torchvision: {error}") from None
    return shape


def _load(folder: Path, heads: int) -> nn.Module:
    weights = load_file(folder / WEIGHTS)
    try:
        width, _, patch, _ = weights["conv_proj.weight"].shape
        size = patch * math.isqrt(weights["encoder.pos_embedding"].shape[1] - 1)
        network = Network(
            image_size=size,
            patch_size=patch,
            num_layers=len({name.split(".")[2] for name in weights if name.startswith("encoder.layers.")}),
            num_heads=heads,
            hidden_dim=width,
            mlp_dim=weights["encoder.layers.encoder_layer_0.mlp.0.weight"].shape[0],
            num_classes=weights["heads.head.weight"].shape[0],
        )
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError, AssertionError) as error:  # the last one for a wrong number of heads
        where = f"{folder / WEIGHTS} contains no vision transformer of torchvision with {heads} heads"
        raise ModelError(f"{where}: {error}") from None
    network.heads = nn.Identity()
    return cast(nn.Module, network)
