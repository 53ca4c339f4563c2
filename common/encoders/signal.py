"""An encoder for windows of sensor signals: acceleration, angular velocity, or other signals with a fixed rate."""

from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from common.config.component import Options
from common.encoders.base import Encoder, EncoderOptions, Stored
from common.encoders.shared.backbones import GRID, grid_means, is_deterministic
from common.encoders.shared.masking import masked
from common.encoders.shared.padding import check_length, over_windows, padded, span_means, through, unpadded
from common.media.series import over_time
from common.media.sounds import resampled
from common.media.values import Raw


class SignalEncoder(Encoder):
    """Divides the values by a fixed number.

    Windows are not standardised one by one, because the level shows how a device is held (gravity) and the spread shows
    how much it moves. Standardising would remove both.
    """

    def __init__(self, options: "Signal") -> None:
        super().__init__()
        self.options, self.width, self.augmentation = options, options.width, options.augment
        self.rate = options.rate
        self.dtype: torch.dtype = getattr(torch, options.stored)
        self.net = SignalCNN(options.channels, options.width)

    def prepare(self, raw: Raw) -> Tensor:
        """[C, T] in the type `stored`, for an array or a series [T, C] with one row per sample. With one channel, [T]
        is also accepted. With a mask: [C + 1, windows * T], see `common.encoders.shared.padding`.

        Raises ValueError for other shapes, an unknown rate, and values that are too large for the type.
        """
        values, rate = over_time(raw, self.options.rate)
        window = self._channelled(values)
        if rate is not None and self.options.rate is not None:
            window = resampled(window, rate, self.options.rate, self._most)
        window = self._fitted(window).astype(np.float32)
        prepared = torch.from_numpy(window.T / np.float32(self.options.scale)).to(self.dtype).contiguous()
        if not prepared.isfinite().all():
            largest = np.abs(window).max()
            raise ValueError(f"values up to {largest:g} are too large for {self.options.stored}: use a larger scale")
        return padded(prepared, self.options.longest) if self.options.has_mask else prepared

    @property
    def _most(self) -> int | None:
        """The maximum number of samples that are resampled; None for all."""
        return self.options.length if self.options.other_lengths == "cut-and-pad" else None

    def _channelled(self, values: NDArray[Any]) -> NDArray[Any]:
        """[T, C]."""
        channels = self.options.channels
        if values.ndim == 1 and channels == 1:
            return values[:, None]
        if values.ndim == 2 and values.shape[1] == channels:
            return values
        hint = ""
        if values.ndim == 2 and values.shape[0] == channels:
            hint = "; it seems to be transposed, [channels, samples]"
        raise ValueError(f"a signal [samples, {channels} channels] is needed, not {list(values.shape)}{hint}")

    def _fitted(self, window: NDArray[Any]) -> NDArray[Any]:
        """[length, C], or with a mask [any length, C]."""
        wanted, given = self.options.length, len(window)
        if self.options.has_mask:
            check_length(given, self.options.longest, "samples")
            return window
        if given != wanted and self.options.other_lengths == "refuse":
            raise ValueError(
                f"a window of {wanted} samples is needed, not of {given}; set other_lengths to mask or cut-and-pad to "
                "use it"
            )
        return np.pad(window[:wanted], ((0, max(0, wanted - given)), (0, 0)), mode="edge")

    def blank(self) -> Tensor:
        """Zeros in the shape and type of a prepared value."""
        return torch.zeros(self.options.channels + self.options.has_mask, self.options.longest, dtype=self.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, C, T] or [B, C + 1, windows * T] -> [B, D]."""
        if self.options.has_mask:
            return over_windows(self.net, inputs.float(), self.options.windows)
        features: Tensor = self.net(inputs.float())
        return features

    def augment(self, prepared: Tensor) -> Tensor:
        """A variant in the shape and type of a prepared value. The padding and the mask do not change."""
        if self.options.augment is None:
            return prepared
        if not self.options.has_mask:
            return _variant(prepared, self.options.augment)
        return padded(_variant(unpadded(prepared), self.options.augment), prepared.shape[-1])


class SignalAugmentation(Options):
    """Random variants of signals in training, in the order of these options."""

    scaling: float = Field(0.0, ge=0, le=10)
    """Standard deviation of the factor, with mean 1, by which all values of a window are multiplied."""
    jitter: float = Field(0.0, ge=0, le=1000)
    """Standard deviation of the noise that is added to every value, in units of `scale`."""
    time_mask: int = Field(0, ge=0, le=1_000_000)
    """Largest number of neighbouring samples that are set to 0 in all channels."""


def _variant(values: Tensor, chosen: SignalAugmentation) -> Tensor:
    """A variant of values [C, T], in their type."""
    made = values.float()
    if chosen.scaling:
        made = made * (1 + chosen.scaling * torch.randn(()))
    if chosen.jitter:
        made = made + chosen.jitter * torch.randn(made.shape)
    if longest := min(chosen.time_mask, values.shape[-1] - 1):
        made = masked(made, longest, -1)
    return made.to(values.dtype)


class Signal(EncoderOptions):
    """Windows of a signal pass through a network that is trained from scratch."""

    of_network: ClassVar[frozenset[str]] = frozenset({"width", "augment"})

    channels: int = Field(3, ge=1, le=4096)
    """Number of channels C."""
    length: int = Field(50, ge=8, le=1_000_000)
    """Number of samples T of a window."""
    rate: float | None = Field(None, gt=0, le=1_000_000)
    """Samples per second to which values are resampled. shard.json must contain the signals' own rate in `rates`.
    `null`: values are not resampled."""
    other_lengths: Literal["refuse", "cut-and-pad", "mask"] = "refuse"
    """How a value with another number of samples is treated. `refuse`: it counts as unreadable, because an array does
    not contain its rate, and a different number of samples probably means a different rate. `cut-and-pad`: the first
    `length` samples are used, or the last sample is repeated. `mask`: a shorter value is padded, and the network
    ignores the padding; a longer value is divided into `windows`."""
    windows: int = Field(1, ge=1, le=1000)
    """The maximum number of windows of `length` samples into which `other_lengths: mask` divides a value. The features
    of the windows are averaged, weighted by their numbers of samples. A longer value counts as unreadable."""
    scale: float = Field(1.0, gt=0)
    """Divisor of the values, in their own unit. Choose it so that typical values are near 1 (9.81 for m/s², 1 for
    rad/s)."""
    stored: Stored = "float32"
    """Type of the prepared values in memory, in the shard's cache and on the way to the device. float16 halves their
    size and rounds every value to 11 bits of precision."""
    width: int = Field(64, ge=1, le=16_384)
    """Number of features D."""

    augment: SignalAugmentation | None = None
    """Random variants of the windows in training. `null`: none."""

    @model_validator(mode="after")
    def _mask_fits(self) -> Self:
        if self.augment is not None and self.augment.time_mask >= self.length:
            raise ValueError(f"augment.time_mask is {self.augment.time_mask}, a window has {self.length} samples")
        return self

    @model_validator(mode="after")
    def _windows_need_a_mask(self) -> Self:
        if self.windows > 1 and not self.has_mask:
            raise ValueError(f"windows is {self.windows}, but only other_lengths: mask divides values into windows")
        return self

    @property
    def has_mask(self) -> bool:
        """Whether prepared values have a mask."""
        return self.other_lengths == "mask"

    @property
    def longest(self) -> int:
        """The number of samples of a prepared value."""
        return self.length * self.windows

    def build(self) -> SignalEncoder:
        """A new encoder with random weights."""
        return SignalEncoder(self)


class SignalCNN(nn.Module):
    """SmallCNN in one dimension: three convolutions over 5 samples, which are each followed by pooling that halves the
    window, then means over 4 parts of the window, then one linear layer. It uses group normalisation for the reasons
    given in SmallCNN."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for before, after in pairwise([channels, 16, 32, 64]):
            blocks += [nn.Conv1d(before, after, 5, padding=2), nn.GroupNorm(8, after), nn.ReLU()]
            blocks += [nn.MaxPool1d(2, ceil_mode=True)]
        self.features = nn.Sequential(*blocks)
        self.project = nn.Linear(64 * GRID, width)

    def forward(self, windows: Tensor, real: Tensor | None = None) -> Tensor:
        """[B, C, T] -> [B, D]. real: mask [B, T] of the samples that count; None for all."""
        if real is not None:
            parts, real = through(self.features, windows, real)
            means = span_means(parts, real, GRID)
        else:
            parts = self.features(windows)
            means = grid_means(parts, -1) if is_deterministic() else F.adaptive_avg_pool1d(parts, GRID)
        features: Tensor = self.project(means.flatten(1))
        return features
