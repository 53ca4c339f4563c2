"""Networks of the library timm for spectrograms of recordings, pre-trained on pictures or from scratch.

Sources: see `common.frozen.timm_models`. Weights that were trained on pictures are a good start for spectrograms:
K. Palanisamy et al., "Rethinking CNN Models for Audio Classification", 2020, https://arxiv.org/abs/2007.11154. timm
adapts a first layer for three colours to one channel by adding its weights over the colours.
"""

from functools import cached_property
from typing import Any, Self

from pydantic import Field, model_validator
from torch import Tensor

from common.encoders.shared.tower_options import TowerOptions
from common.encoders.spectrogram import SoundAugmentation, Spectrogram, SpectrogramEncoder, check_clip
from common.encoders.timm import TimmTower
from common.frozen import timm_models
from common.frozen.pretrained import fingerprint, locate
from common.frozen.timm_models import Recipe
from common.media.values import Raw


class TimmSpectrogramTower(TimmTower):
    """The spectrogram, standardised per clip, is a picture with one channel."""

    def __init__(self, sounds: SpectrogramEncoder, recipe: Recipe, network: Any, grid: int) -> None:
        super().__init__(recipe, network, grid, crop=False)
        self.sounds = sounds

    def inputs(self, raw: Raw) -> Tensor:
        """The spectrogram [1, frequencies, frames] float32."""
        return self.sounds.prepare(raw)

    def blank(self) -> Tensor:
        """Zeros in the shape and type of a spectrogram."""
        return self.sounds.blank()

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, grid * grid, D] and their mask."""
        return self.of_values(inputs.float())


class TimmSpectrogram(TowerOptions):
    """Spectrograms of recordings pass through a network of timm."""

    model: str | None = None
    """timm's name of the architecture, e.g. mobilenetv2_100. `null`: the one that the folder of the weights names."""
    pretrained: str | None = None
    """Name of pre-trained weights, see `common.frozen.pretrained`. `null`: random weights, which needs `train: all`."""
    rate: int = Field(16_000, ge=1000, le=768_000)
    """Samples per second to which recordings are resampled."""
    seconds: float = Field(3.0, gt=0, le=3600)
    """Length of a clip."""
    n_fft: int = Field(1024, ge=16, le=65_536)
    """Samples per window of the short-time Fourier transform."""
    hop: int = Field(160, ge=1, le=65_536)
    """Samples from one window to the next."""
    n_mels: int | None = Field(128, ge=8, le=1024)
    """Number of mel frequencies. `null`: linear frequencies."""
    grid: int = Field(4, ge=1, le=64)
    """Cells per side of the spectrogram. Each token is the mean over one of grid x grid cells."""
    augment: SoundAugmentation | None = None
    """Random variants of the recordings in training. `null`: none."""

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        check_clip(self.rate * self.seconds, self.n_fft)
        return self

    @property
    def starts_pretrained(self) -> bool:
        """Whether there are pre-trained weights."""
        return self.pretrained is not None

    @property
    def resampled_to(self) -> float:
        """Samples per second."""
        return self.rate

    @cached_property
    def sounds(self) -> Spectrogram:
        """The preprocessing."""
        return Spectrogram(
            rate=self.rate, seconds=self.seconds, n_fft=self.n_fft, hop=self.hop, n_mels=self.n_mels,
            augment=self.augment,
        )  # fmt: skip

    @cached_property
    def sounds_encoder(self) -> SpectrogramEncoder:
        """The encoder whose preprocessing and augmentation are used."""
        return self.sounds.build()

    @cached_property
    def recipe(self) -> Recipe:
        """How the network is made.

        Raises ModelError.
        """
        folder = None if self.pretrained is None else locate(self.pretrained)
        return timm_models.fitted(timm_models.recipe(self.model, folder), self.sounds.shape, channels=1)

    def shape(self) -> tuple[int, int]:
        """The width of the features, and grid * grid tokens."""
        return max(timm_models.widths(self.recipe)), self.grid**2

    def load(self, weights: bool = True) -> TimmSpectrogramTower:
        """A new tower."""
        network = timm_models.network(self.recipe) if weights else None
        return TimmSpectrogramTower(self.sounds_encoder, self.recipe, network, self.grid)

    def described(self) -> str:
        """A text with the options and a hash of the model's folder."""
        content = "random" if self.pretrained is None else f"{self.pretrained} {fingerprint(locate(self.pretrained))}"
        sounds = f"{self.rate} Hz, {self.seconds:g} s, n_fft {self.n_fft}, hop {self.hop}, {self.n_mels} mels"
        return f"timm-spectrogram {self.model} {sounds}, grid {self.grid} {content}"

    def variant(self, prepared: Tensor) -> Tensor:
        """[1, frequencies, frames]."""
        return self.sounds_encoder.augment(prepared)
