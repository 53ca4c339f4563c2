"""Windows of sensor signals: acceleration, angular velocity, or anything else sampled at a fixed rate."""

from itertools import pairwise

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from common.backbones import GRID, grid_means
from common.data.media import Raw
from common.encoders.base import Encoder, EncoderOptions


class SignalEncoder(Encoder):
    """Values divided by a fixed number. Nothing is standardised per window: the level says how a device is held
    (gravity) and the spread how much it moves, and a window by itself has neither to compare with."""

    def __init__(self, options: "Signal") -> None:
        super().__init__()
        self.options, self.width = options, options.width
        self.net = SignalCNN(options.channels, options.width)

    def prepare(self, raw: Raw) -> Tensor:
        """[C, T] of an array [T, C], a row a sample.

        Only windows of exactly `length` samples are taken: an array does not say its rate, and another number of
        samples is more likely another rate than another duration.
        """
        if not isinstance(raw, np.ndarray):
            raise ValueError(f"an array is needed, not {type(raw).__name__}")
        shape = (self.options.length, self.options.channels)
        if raw.shape != shape:
            raise ValueError(f"a window of {shape} (samples, channels) is needed, not {raw.shape}")
        return torch.from_numpy(raw.astype(np.float32).T / np.float32(self.options.scale)).contiguous()

    def blank(self) -> Tensor:
        """[C, T] of zeros."""
        return torch.zeros(self.options.channels, self.options.length)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, T] -> [B, D]."""
        features: Tensor = self.net(inputs)
        return features


class Signal(EncoderOptions):
    """Windows of a signal through a network that is trained from scratch."""

    channels: int = Field(3, ge=1)
    """C."""
    length: int = Field(50, ge=8)
    """Samples T of a window."""
    scale: float = Field(1.0, gt=0)
    """What values are divided by, in their own unit, so that usual ones are near 1 (9.81 for m/s², 1 for rad/s)."""
    width: int = Field(64, ge=1)
    """Features D."""

    def build(self) -> SignalEncoder:
        """A new encoder with random weights."""
        return SignalEncoder(self)


class SignalCNN(nn.Module):
    """SmallCNN in one dimension: three convolutions over 5 samples, each halving the window, then means over 4 parts
    of it and one linear layer. Group normalisation for the reasons given there."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after in pairwise([channels, 16, 32, 64]):
            blocks += [nn.Conv1d(before, after, 5, padding=2), nn.GroupNorm(8, after), nn.ReLU()]
            blocks += [nn.MaxPool1d(2, ceil_mode=True)]
        self.features = nn.Sequential(*blocks)
        self.project = nn.Linear(64 * GRID, width)

    def forward(self, windows: Tensor) -> Tensor:
        """[B, C, T] -> [B, D]."""
        features: Tensor = self.project(grid_means(self.features(windows), -1).flatten(1))
        return features
