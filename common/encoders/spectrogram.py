"""Recordings as log spectrograms."""

from typing import Self

import torch
import torchaudio
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from common.backbones import Backbone, backbone
from common.data.media import Raw, Sound
from common.encoders.base import Encoder, EncoderOptions

FLOOR = 1e-7
"""Added to the magnitudes before the logarithm (methods.md 1.8, as in FedCMI's CREMA-D preprocessing)."""


class SpectrogramEncoder(Encoder):
    """Mono, resampled, cut or padded with silence to a fixed length; log(|STFT| + 1e-7), standardised per clip."""

    def __init__(
        self, rate: int, seconds: float, n_fft: int, hop: int, kind: Backbone, width: int
    ) -> None:
        super().__init__()
        self.rate, self.length, self.width = rate, round(seconds * rate), width
        self.n_fft, self.hop = n_fft, hop
        self.window = torch.hann_window(n_fft)  # a plain attribute, not a buffer: a constant is not sent
        self.net = backbone(kind, 1, width)

    def prepare(self, raw: Raw) -> Tensor:
        """[1, n_fft / 2 + 1, frames]."""
        if not isinstance(raw, Sound):
            raise ValueError(f"a recording is needed, not {type(raw).__name__}")
        wave = torch.from_numpy(raw.samples).mean(dim=1)
        wave = torchaudio.functional.resample(wave, raw.rate, self.rate)[: self.length]
        wave = F.pad(wave, (0, self.length - len(wave)))
        magnitude = torchaudio.functional.spectrogram(
            wave, 0, self.window, self.n_fft, self.hop, self.n_fft, power=1.0, normalized=False, center=False
        )
        log = torch.log(magnitude + FLOOR)
        return ((log - log.mean()) / (log.std() + FLOOR)).unsqueeze(0)

    def blank(self) -> Tensor:
        """Zeros in the shape of a spectrogram: the mean of a standardised clip."""
        return torch.zeros(1, self.n_fft // 2 + 1, (self.length - self.n_fft) // self.hop + 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, 1, frequencies, frames] -> [B, D]."""
        features: Tensor = self.net(inputs)
        return features


class Spectrogram(EncoderOptions):
    """rate: Hz after resampling; seconds: length of a clip; n_fft, hop: window and step in samples; width: features D."""

    rate: int = Field(8000, ge=1000)
    seconds: float = Field(1.0, gt=0)
    n_fft: int = Field(256, ge=16)
    hop: int = Field(128, ge=1)
    backbone: Backbone = "cnn"
    width: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        if self.rate * self.seconds < self.n_fft:
            raise ValueError(f"a clip has {self.rate * self.seconds:g} samples, fewer than n_fft = {self.n_fft}")
        return self

    def build(self) -> SpectrogramEncoder:
        """A new encoder with random weights."""
        return SpectrogramEncoder(self.rate, self.seconds, self.n_fft, self.hop, self.backbone, self.width)
