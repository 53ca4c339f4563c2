"""Networks from a picture-like tensor [B, C, H, W] to features [B, D], shared by image and spectrogram encoders."""

from typing import Literal

import torch
from torch import Tensor, nn
from torchvision.models import resnet18

Backbone = Literal["cnn", "resnet18"]


def backbone(kind: Backbone, channels: int, width: int) -> nn.Module:
    """A backbone with random weights; `width` is D. resnet18 has 512 features, mapped to D when D is another number."""
    if kind == "cnn":
        return SmallCNN(channels, width)
    return ResNet18(channels, width)


class SmallCNN(nn.Module):
    """Three 3 x 3 convolutions, each halving the picture, then pooling to 2 x 2 and one linear layer.

    Group normalisation instead of batch normalisation: its result for one example does not depend on the others, and
    there are no running statistics to average over clients.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = [channels, 16, 32, 64]
        blocks: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            blocks += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(8, after), nn.ReLU()]
            blocks += [nn.MaxPool2d(2, ceil_mode=True)]
        self.features = nn.Sequential(*blocks)
        # Cells of a map are averaged in a 2 x 2 grid by strides, since adaptive pooling has no deterministic gradient.
        self.project = nn.Linear(64 * 4, width)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D]."""
        return torch.relu(self.project(_pool_2x2(self.features(pictures)).flatten(1)))


def _pool_2x2(maps: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, C, 2, 2]: the means of the four quarters; a single row or column is in both halves."""
    height, width = maps.shape[-2:]
    rows = (maps[..., : (height + 1) // 2, :], maps[..., height // 2 :, :])
    quarters = [half[..., part] for half in rows for part in (slice(0, (width + 1) // 2), slice(width // 2, None))]
    return torch.stack([quarter.mean((-2, -1)) for quarter in quarters], dim=-1).unflatten(-1, (2, 2))


class ResNet18(nn.Module):
    """torchvision's ResNet-18 from scratch, first layer for any number of channels.

    K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.net = resnet18(weights=None)
        if channels != 3:
            self.net.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.net.fc = nn.Identity() if width == 512 else nn.Linear(512, width)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, D]."""
        if self.training and len(pictures) == 1:
            return self._single(pictures)
        features: Tensor = self.net(pictures)
        return features

    def _single(self, pictures: Tensor) -> Tensor:
        """One example has no batch statistics (its deepest maps may be 1 x 1): the running ones stand in."""
        self.net.eval()
        try:
            features: Tensor = self.net(pictures)
        finally:
            self.net.train()
        return features
