"""An encoder for recordings. It uses the power of each frequency, and ignores the order in time."""

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from common.encoders.base import Encoder, EncoderOptions
from common.media.sounds import Sound
from common.media.values import Raw


class SpectrumEncoder(Encoder):
    """Log of the power in bands of equal width -> two linear layers."""

    def __init__(self, options: "Spectrum") -> None:
        super().__init__()
        self.options, self.width = options, options.width
        self.net = nn.Sequential(
            nn.Linear(options.bands, options.width), nn.ReLU(), nn.Linear(options.width, options.width)
        )

    def prepare(self, raw: Raw) -> Tensor:
        """[bands]."""
        if not isinstance(raw, Sound):
            raise ValueError(f"a recording is needed, not {type(raw).__name__}")
        samples = raw.samples.mean(axis=1)
        power = np.abs(np.fft.rfft(samples)) ** 2 / len(samples)
        frequencies = np.fft.rfftfreq(len(samples), 1 / raw.rate)
        bands, _ = np.histogram(frequencies, self.options.bands, range=(0, self.options.highest), weights=power)
        return torch.from_numpy(np.log(bands + 1e-6).astype(np.float32))

    def blank(self) -> Tensor:
        """[bands] of zeros."""
        return torch.zeros(self.options.bands)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, bands] -> [B, D]."""
        features: Tensor = self.net(inputs)
        return features


class Spectrum(EncoderOptions):
    """Recordings as their power in bands of frequency, through layers that are trained from scratch."""

    bands: int = Field(64, ge=2)
    """How many bands."""
    highest: float = Field(4000.0, gt=0)
    """The end of the last band, in Hz."""
    width: int = Field(64, ge=1)
    """Features D."""

    def build(self) -> SpectrumEncoder:
        """A new encoder with random weights."""
        return SpectrumEncoder(self)
