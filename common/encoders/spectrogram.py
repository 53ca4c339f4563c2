"""An encoder for recordings. It converts them to log spectrograms."""

from typing import ClassVar, Literal, Self

import torch
import torchaudio
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from common.config.component import Options
from common.encoders.base import Encoder, EncoderOptions, Stored
from common.encoders.shared.backbones import Backbone, backbone, check_sides
from common.encoders.shared.masking import masked
from common.encoders.shared.padding import check_length, over_windows, padded, unpadded
from common.media.sounds import Sound, resampled
from common.media.values import Raw

FLOOR = 1e-7
"""Added to the magnitudes before the logarithm (1.8 of docs/methods.md, FedCMI's preprocessing)."""

SILENT = 1e-3
"""The largest standard deviation of the log spectrogram of a silent clip. Smaller deviations are rounding errors."""


class SpectrogramEncoder(Encoder):
    """A clip is converted to mono, resampled and cut to a fixed length. log(|STFT| + 1e-7) is standardised per clip and
    then padded with its mean. Silence becomes zeros.

    Padding is the last step. If silence were added before the logarithm, it would dominate the standardisation of a
    short clip.
    """

    def __init__(self, options: "Spectrogram") -> None:
        super().__init__()
        self.options, self.width, self.augmentation = options, options.width, options.augment
        self.length, self.rate = options.samples, options.rate
        self.dtype: torch.dtype = getattr(torch, options.stored)
        # Plain attributes instead of buffers, because constants are not sent.
        self.window = torch.hann_window(options.n_fft)
        self.mel = _mel_filters(options)
        self.net = backbone(options.backbone, 1, options.width, options.filters)

    def prepare(self, raw: Raw) -> Tensor:
        """The spectrogram [1, frequencies, frames] in the type `stored`. With a mask: [1, frequencies + 1, windows *
        frames], see `common.encoders.shared.padding`."""
        if not isinstance(raw, Sound):
            raise ValueError(f"a recording is needed, not {type(raw).__name__}")
        wave = torch.from_numpy(resampled(raw.mono(), raw.rate, self.options.rate, self._most))
        wave = F.pad(wave, (0, max(0, self.options.n_fft - len(wave))))
        log = torch.log(self._magnitude(wave) + FLOOR)
        deviation = log.std()
        log = (log - log.mean()) / (deviation + FLOOR) if deviation > SILENT else torch.zeros_like(log)
        if self.options.has_mask:
            check_length(log.shape[1], self.options.longest, "frames")
            return padded(log, self.options.longest).unsqueeze(0).to(self.dtype)
        return F.pad(log, (0, self.options.shape[1] - log.shape[1])).unsqueeze(0).to(self.dtype)

    @property
    def _most(self) -> int | None:
        """The maximum number of samples that are used; None for all."""
        return None if self.options.has_mask else self.length

    def _magnitude(self, wave: Tensor) -> Tensor:
        """The magnitudes [frequencies, frames], on the mel scale if `n_mels` is set."""
        n_fft, hop = self.options.n_fft, self.options.hop
        magnitude: Tensor = torchaudio.functional.spectrogram(
            wave, 0, self.window, n_fft, hop, n_fft, power=1.0, normalized=False, center=False
        )
        return magnitude if self.mel is None else self.mel.T @ magnitude

    def blank(self) -> Tensor:
        """Zeros in the shape and type of a prepared value. Zero is the mean of a standardised clip."""
        frequencies = self.options.shape[0] + self.options.has_mask
        return torch.zeros(1, frequencies, self.options.longest, dtype=self.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, 1, frequencies, frames] or [B, 1, frequencies + 1, windows * frames] -> [B, D]."""
        if self.options.has_mask:
            return over_windows(self.net, inputs.float(), self.options.windows)
        features: Tensor = self.net(inputs.float())
        return features

    def augment(self, prepared: Tensor) -> Tensor:
        """A variant in the shape and type of a prepared value. The padding and the mask do not change."""
        if self.options.augment is None:
            return prepared
        if not self.options.has_mask:
            return _variant(prepared, self.options)
        return padded(_variant(unpadded(prepared), self.options), prepared.shape[-1])


class SoundAugmentation(Options):
    """Random variants of recordings in training, in the order of these options. They change the prepared spectrogram,
    in which 0 is the mean of the clip."""

    shift: float = Field(0.0, ge=0, le=3600)
    """Largest shift in seconds, to earlier or later frames. Frames that leave the clip are lost. The new frames have
    the mean of the clip."""
    frequency_mask: int = Field(0, ge=0, le=65_536)
    """Largest number of neighbouring frequencies that are set to the mean of the clip (SpecAugment)."""
    time_mask: float = Field(0.0, ge=0, le=3600)
    """Largest length in seconds of a part that is set to the mean of the clip (SpecAugment)."""
    gain: float = Field(0.0, ge=0, le=10)
    """Largest number that is added to the whole spectrogram or subtracted from it, in standard deviations of the clip's
    log magnitudes. It is not in decibels, because the encoder standardises every clip and so removes the loudness of
    the recording."""


class Spectrogram(EncoderOptions):
    """Spectrograms of recordings pass through a backbone that is trained from scratch."""

    of_network: ClassVar[frozenset[str]] = frozenset({"backbone", "filters", "width", "augment"})

    rate: int = Field(8000, ge=1000, le=768_000)
    """Sampling rate in Hz after resampling."""
    seconds: float = Field(1.0, gt=0, le=3600)
    """Length of a clip in seconds."""
    n_fft: int = Field(256, ge=16, le=65_536)
    """Length of the Fourier transform's window in samples."""
    hop: int = Field(128, ge=1, le=65_536)
    """Distance between two windows in samples."""
    n_mels: int | None = Field(None, ge=8, le=4096)
    """Number of mel bands. `null`: the n_fft / 2 + 1 linear frequencies."""
    other_lengths: Literal["cut-and-pad", "mask"] = "cut-and-pad"
    """How a clip with another length is treated. `cut-and-pad`: the first `seconds` are used, and a shorter clip is
    padded with its mean. `mask`: a shorter clip is padded, and the network ignores the padding; a longer clip is
    divided into `windows`. Only the backbone cnn has a mask."""
    windows: int = Field(1, ge=1, le=1000)
    """The maximum number of windows of `seconds` into which `other_lengths: mask` divides a clip. The features of the
    windows are averaged, weighted by their lengths. A longer clip counts as unreadable."""
    stored: Stored = "float32"
    """Type of the prepared values in memory, in the shard's cache and on the way to the device. float16 halves their
    size and rounds every value to 11 bits of precision."""
    backbone: Backbone = "cnn"
    """The network that computes the features."""
    filters: int = Field(16, ge=8, multiple_of=8, le=1024)
    """Number of filters of the first convolution of the cnn backbone."""
    width: int = Field(64, ge=1, le=16_384)
    """Number of features D."""
    augment: SoundAugmentation | None = None
    """Random variants of the recordings in training. `null`: none."""

    @model_validator(mode="after")
    def _augmentation_fits(self) -> Self:
        chosen, (frequencies, frames) = self.augment or SoundAugmentation(), self.shape
        step = self.hop / self.rate
        for option, seconds in (("shift", chosen.shift), ("time_mask", chosen.time_mask)):
            if seconds and not 1 <= self.frames(seconds) < frames:
                raise ValueError(
                    f"augment.{option} is {seconds:g} s, a frame is {step:g} s and the spectrogram {frames * step:g} s"
                )
        if chosen.frequency_mask >= frequencies:
            raise ValueError(f"augment.frequency_mask is {chosen.frequency_mask}, there are {frequencies} frequencies")
        return self

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        check_clip(self.rate * self.seconds, self.n_fft)
        check_sides(self.backbone, *self.shape)
        return self

    @model_validator(mode="after")
    def _mask_is_possible(self) -> Self:
        if self.windows > 1 and not self.has_mask:
            raise ValueError(f"windows is {self.windows}, but only other_lengths: mask divides clips into windows")
        if self.has_mask and self.backbone != "cnn":
            raise ValueError(f"other_lengths: mask needs the backbone cnn. The batch normalisation of {self.backbone} "
                             "would read the padding")  # fmt: skip
        return self

    @property
    def has_mask(self) -> bool:
        """Whether prepared values have a mask."""
        return self.other_lengths == "mask"

    @property
    def longest(self) -> int:
        """The number of frames of a prepared value."""
        return self.shape[1] * self.windows

    @property
    def samples(self) -> int:
        """Number of samples of a clip after resampling."""
        return round(self.seconds * self.rate)

    @property
    def shape(self) -> tuple[int, int]:
        """(frequencies, frames) of a spectrogram. Windows are completely inside the clip. With 16 kHz, n_fft 512 and
        hop 159, 3 s give 257 x 299 as in 1.8 of docs/methods.md, and 10 s give 257 x 1004."""
        return self.n_mels or self.n_fft // 2 + 1, (self.samples - self.n_fft) // self.hop + 1

    def frames(self, seconds: float) -> int:
        """The number of frames that is nearest to a duration."""
        return round(seconds * self.rate / self.hop)

    def build(self) -> SpectrogramEncoder:
        """A new encoder with random weights."""
        return SpectrogramEncoder(self)


def _variant(values: Tensor, options: Spectrogram) -> Tensor:
    """A variant of a spectrogram [1, frequencies, frames], in its type."""
    chosen, made, most_lost = options.augment or SoundAugmentation(), values.float(), values.shape[-1] - 1
    if most := min(options.frames(chosen.shift), most_lost):
        frames = int(torch.randint(-most, most + 1, ()))
        made = F.pad(made, (frames, -frames))
    if chosen.frequency_mask:
        made = masked(made, chosen.frequency_mask, -2)
    if longest := min(options.frames(chosen.time_mask), most_lost):
        made = masked(made, longest, -1)
    if chosen.gain:
        made = made + chosen.gain * (2 * torch.rand(()) - 1)
    return made.to(values.dtype)


def _mel_filters(options: Spectrogram) -> Tensor | None:
    """Triangular filters [n_fft / 2 + 1, n_mels]; None for linear frequencies."""
    if options.n_mels is None:
        return None
    filters: Tensor = torchaudio.functional.melscale_fbanks(
        options.n_fft // 2 + 1, 0.0, options.rate / 2, options.n_mels, options.rate
    )
    return filters


def check_clip(samples: float, n_fft: int) -> None:
    """Raises ValueError when a clip is shorter than one window."""
    if samples < n_fft:
        raise ValueError(f"a clip has {samples:g} samples, fewer than n_fft = {n_fft}")
