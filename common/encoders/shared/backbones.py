"""Networks that compute features [B, D] from a picture-like tensor [B, C, H, W], for image and spectrogram encoders."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.shared.padding import span_means, through

Backbone = Literal["cnn", "resnet18", "resnet50", "densenet121"]
GRID = 4
"""Cells per side of the grid over which SmallCNN averages its features."""
DENSENET_SIDE = 32
"""Smallest side of a picture for DenseNet-121, which halves the picture five times, the last three times without
padding."""


def backbone(kind: Backbone, channels: int, width: int, filters: int = 16) -> nn.Module:
    """A backbone with random weights. width: the number D of features. The features of resnet18 (512), resnet50 (2048)
    and densenet121 (1024) are mapped to D features by a linear layer when D is another number.

    filters: number of filters of the first convolution of cnn. The next two convolutions have two and four times as
    many.
    """
    if kind == "cnn":
        return SmallCNN(channels, width, filters)
    return DenseNet121(channels, width) if kind == "densenet121" else ResNet(kind, channels, width)


def check_sides(kind: Backbone, height: int, width: int) -> None:
    """Raises ValueError when pictures of height x width are too small for a backbone."""
    if kind == "densenet121" and min(height, width) < DENSENET_SIDE:
        raise ValueError(f"densenet121 needs {DENSENET_SIDE} x {DENSENET_SIDE} or larger, not {height} x {width}")


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions of stride 2, then means over a 4 x 4 grid, then one linear layer.

    It uses group normalisation instead of batch normalisation, because the result for an example then does not depend
    on other examples, and because there are no running statistics to average over clients.
    """

    def __init__(self, channels: int, width: int, filters: int = 16) -> None:
        super().__init__()
        sizes = [channels, filters, 2 * filters, 4 * filters]
        blocks: list[nn.Module] = []
        for before, after in pairwise(sizes):
            blocks += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.GroupNorm(8, after), nn.ReLU()]
        self.features = nn.Sequential(*blocks)
        self.project = nn.Linear(4 * filters * GRID * GRID, width)

    def forward(self, pictures: Tensor, real: Tensor | None = None) -> Tensor:
        """[B, C, H, W] -> [B, D]. real: mask [B, W] of the columns that count; None for all."""
        if real is not None:
            maps, real = through(self.features, pictures, real)
            means = span_means(grid_means(maps, -2), real, GRID)
        else:
            maps = self.features(pictures)
            means = cells(maps, GRID)
        features: Tensor = self.project(means.flatten(1))
        return features


def is_deterministic() -> bool:
    """Whether torch must compute the same bits every time in this process."""
    return torch.get_deterministic_debug_mode() > 0


def cells(maps: Tensor, grid: int) -> Tensor:
    """Means [..., grid, grid] over the cells of maps [..., H, W]."""
    if is_deterministic():
        return grid_means(grid_means(maps, -2, grid), -1, grid)
    return F.adaptive_avg_pool2d(maps, grid)


def grid_means(maps: Tensor, dim: int, parts: int = GRID) -> Tensor:
    """Means over nearly equal parts of one dimension, like adaptive pooling. torch's adaptive pooling is faster, but
    its gradient is not deterministic on every device."""
    size = maps.shape[dim]
    edges = [(i * size // parts, -(-(i + 1) * size // parts)) for i in range(parts)]
    return torch.stack([maps.narrow(dim, start, end - start).mean(dim) for start, end in edges], dim)


class BatchNormed(nn.Module):
    """A network `net` with batch normalisation that can also be trained on a single example."""

    net: nn.Module

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D]."""
        if self.training and len(pictures) == 1:
            return self._single(pictures)
        features: Tensor = self.net(pictures)
        return features

    def _single(self, pictures: Tensor) -> Tensor:
        """The features of one example, computed with the running statistics, because one example has no batch
        statistics (its deepest maps may be 1 x 1)."""
        self.net.eval()
        try:
            features: Tensor = self.net(pictures)
        finally:
            self.net.train()
        return features


class ResNet(BatchNormed):
    """torchvision's ResNet-18 or ResNet-50 with random weights and a first layer for any number of channels.

    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    def __init__(self, kind: Backbone, channels: int, width: int) -> None:
        from torchvision import models  # here, because this import takes longer than all others together

        super().__init__()
        net = models.resnet18(weights=None) if kind == "resnet18" else models.resnet50(weights=None)
        if channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        own = net.fc.in_features
        net.fc = nn.Identity() if width == own else nn.Linear(own, width)
        self.net = net


class DenseNet121(BatchNormed):
    """torchvision's DenseNet-121 with random weights and a first layer for any number of channels.

    G. Huang, Z. Liu, L. van der Maaten, K. Q. Weinberger, "Densely Connected Convolutional Networks", CVPR 2017.
    """

    def __init__(self, channels: int, width: int) -> None:
        from torchvision.models import densenet121

        super().__init__()
        net = densenet121(weights=None)
        if channels != 3:
            net.features.conv0 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        net.classifier = nn.Identity() if width == 1024 else nn.Linear(1024, width)
        self.net = net
