"""Signals and recordings of any length: the amount of padding changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from common.config.component import build
from common.encoders.base import Encoder
from common.encoders.shared.padding import check_length, padded, span_means, through, unpadded
from common.media.series import Series
from common.media.sounds import Sound
from common.seeding import seeded
from fedmosaic.testing.encoders import EncoderContract

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def encoder(name: str, **options: Any) -> Encoder:
    """An encoder with the same random weights for the same sizes of layers."""
    with seeded(3, "weights"):
        made = build("encoder", {"name": name, **options}).build().eval()
    for parameter in made.parameters():  # biases and norms of new networks are 0 and 1, which would hide mistakes
        with torch.no_grad(), seeded(5, str(tuple(parameter.shape))):
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return made


def signal(length: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(1, 2, (length, 3)).astype(np.float32)


def sound(samples: int, seed: int = 0) -> Sound:
    return Sound((np.random.default_rng(seed).normal(size=(samples, 1)) / 9).astype(np.float32), 8000)


def features(made: Encoder, *raws: Any) -> Tensor:
    with torch.no_grad():
        return made(torch.stack([made.prepare(raw) for raw in raws]))


class TestSignals:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 90), st.integers(0, 200), st.integers(0, 9))
    def test_padding_changes_nothing(self, length: int, more: int, seed: int) -> None:
        room = max(8, length)
        exact = encoder("signal", length=room, other_lengths="mask")
        wide = encoder("signal", length=room + more, other_lengths="mask")
        one = signal(length, seed)
        assert torch.allclose(features(exact, one), features(wide, one), **CLOSE)

    @pytest.mark.parametrize("length", [8, 9, 10, 11, 12, 13, 15, 16, 17, 50, 63, 101])
    def test_a_full_window_is_as_without_a_mask(self, length: int) -> None:
        """So the masked layers are those of torch, at every length."""
        plain, masked = encoder("signal", length=length), encoder("signal", length=300, other_lengths="mask")
        assert torch.allclose(features(plain, signal(length)), features(masked, signal(length)), **CLOSE)

    def test_neighbours_in_a_batch_change_nothing(self) -> None:
        made = encoder("signal", length=60, other_lengths="mask", windows=3)
        raws = [signal(length, seed) for seed, length in enumerate((1, 20, 60, 61, 180))]
        together = features(made, *raws)
        for row, raw in zip(together, raws, strict=True):
            assert torch.allclose(row, features(made, raw)[0], **CLOSE)

    def test_long_values_are_the_weighted_mean_of_their_windows(self) -> None:
        one = encoder("signal", length=40, other_lengths="mask")
        several = encoder("signal", length=40, other_lengths="mask", windows=5)
        value = signal(90)
        parts = features(one, value[:40], value[40:80], value[80:])
        expected = (40 * parts[0] + 40 * parts[1] + 10 * parts[2]) / 90
        assert torch.allclose(features(several, value)[0], expected, **CLOSE)

    def test_lengths(self) -> None:
        made = encoder("signal", length=40, other_lengths="mask", windows=2)
        assert made.prepare(signal(30)).shape == (4, 80) == made.blank().shape
        assert made.prepare(signal(30))[-1].tolist() == [1] * 30 + [0] * 50
        with pytest.raises(ValueError, match="81 samples, at most 80 fit into the windows"):
            made.prepare(signal(81))
        with pytest.raises(ValueError, match=r"array is empty"):
            made.prepare(signal(0))
        resampled = build("encoder", {"name": "signal", "length": 40, "rate": 50.0, "other_lengths": "mask"}).build()
        assert resampled.prepare(Series(signal(30), 100.0))[-1].sum() == 15
        with pytest.raises(ValueError, match="other_lengths: mask"):
            build("encoder", {"name": "signal", "windows": 2})

    def test_the_names_of_the_parameters_are_the_same(self) -> None:
        plain, masked = encoder("signal"), encoder("signal", other_lengths="mask", windows=3)
        masked.load_state_dict(plain.state_dict())

    def test_variants_keep_the_padding_and_the_mask(self) -> None:
        augment = {"scaling": 0.5, "jitter": 0.5, "time_mask": 20}
        made = encoder("signal", length=40, other_lengths="mask", windows=2, augment=augment)
        for length in (1, 2, 15, 80):
            prepared = made.prepare(signal(length))
            variants = [made.augment(prepared) for _ in range(20)]
            for one in variants:
                assert one.shape == prepared.shape and one.dtype == prepared.dtype
                assert torch.equal(one[-1], prepared[-1]) and not one[:, length:].any()
            assert any(not torch.equal(one, prepared) for one in variants)
        assert any((one[:-1] == 0).all(0).any() for one in [made.augment(made.prepare(signal(80))) for _ in range(20)])
        assert torch.equal(made.augment(made.blank()), made.blank())


SMALL = {"n_fft": 64, "hop": 32, "n_mels": 16}


class TestSounds:
    @settings(max_examples=25, deadline=None)
    @given(st.integers(64, 4000), st.integers(0, 4000), st.integers(0, 9))
    def test_padding_changes_nothing(self, samples: int, more: int, seed: int) -> None:
        exact = encoder("spectrogram", seconds=samples / 8000, other_lengths="mask", **SMALL)
        wide = encoder("spectrogram", seconds=(samples + more) / 8000, other_lengths="mask", **SMALL)
        one = sound(samples, seed)
        assert torch.allclose(features(exact, one), features(wide, one), **CLOSE)

    @pytest.mark.parametrize("samples", [128, 500, 1000, 1016, 4000])
    def test_a_full_clip_is_as_without_a_mask(self, samples: int) -> None:
        plain = encoder("spectrogram", seconds=samples / 8000, **SMALL)
        masked = encoder("spectrogram", seconds=1.0, other_lengths="mask", **SMALL)
        assert torch.allclose(features(plain, sound(samples)), features(masked, sound(samples)), **CLOSE)

    def test_cutting_and_padding_do_not_ignore_the_padding(self) -> None:
        """The test above finds a difference where there is one."""
        plain = encoder("spectrogram", seconds=0.5, **SMALL)
        masked = encoder("spectrogram", seconds=0.5, other_lengths="mask", **SMALL)
        assert not torch.allclose(features(plain, sound(1000)), features(masked, sound(1000)), **CLOSE)

    def test_long_clips(self) -> None:
        made = encoder("spectrogram", seconds=0.1, other_lengths="mask", windows=3, **SMALL)
        frames = (800 - 64) // 32 + 1
        assert made.prepare(sound(2000)).shape == (1, 17, 3 * frames) == made.blank().shape
        assert made.prepare(sound(2000))[0, -1].sum() == (2000 - 64) // 32 + 1
        one = encoder("spectrogram", seconds=0.1, other_lengths="mask", **SMALL)
        prepared = made.prepare(sound(2000))[0, :-1, : (2000 - 64) // 32 + 1]
        parts = prepared.split(frames, dim=-1)
        inputs = torch.stack([padded(part, frames)[None] for part in parts])
        weights = torch.tensor([part.shape[-1] for part in parts], dtype=torch.float32)
        with torch.no_grad():
            expected = (one(inputs) * weights[:, None]).sum(0) / weights.sum()
        assert torch.allclose(features(made, sound(2000))[0], expected, **CLOSE)
        with pytest.raises(ValueError, match=r"\d+ frames, at most 72 fit into the windows"):
            made.prepare(sound(8000))
        assert features(made, sound(10)).isfinite().all()

    def test_options(self) -> None:
        with pytest.raises(ValueError, match="mask needs the backbone cnn"):
            build("encoder", {"name": "spectrogram", "other_lengths": "mask", "backbone": "resnet18"})
        with pytest.raises(ValueError, match="only other_lengths: mask"):
            build("encoder", {"name": "spectrogram", "windows": 2})
        plain, masked = encoder("spectrogram"), encoder("spectrogram", other_lengths="mask", windows=3)
        masked.load_state_dict(plain.state_dict())

    def test_variants_keep_the_padding_and_the_mask(self) -> None:
        augment = {"shift": 0.05, "frequency_mask": 4, "time_mask": 0.05, "gain": 0.5}
        made = encoder("spectrogram", seconds=0.1, other_lengths="mask", windows=2, augment=augment, **SMALL)
        for samples in (64, 100, 500, 1500):
            prepared = made.prepare(sound(samples))
            real = int(prepared[0, -1].sum())
            for one in [made.augment(prepared) for _ in range(20)]:
                assert one.shape == prepared.shape and torch.equal(one[0, -1], prepared[0, -1])
                assert not one[..., real:].any()
                assert one[0, :-1, :real].any()


class TestLayers:
    def test_padding_and_back(self) -> None:
        values = torch.randn(3, 5)
        assert torch.equal(unpadded(padded(values, 9)), values)
        values = torch.randn(1, 4, 7).half()
        assert torch.equal(unpadded(padded(values, 7)), values) and padded(values, 7).dtype == torch.float16
        check_length(3, 3, "samples")

    @pytest.mark.parametrize("length", range(1, 20))
    def test_means_of_parts_are_torchs(self, length: int) -> None:
        values = torch.randn(2, 3, length)
        real = torch.ones(2, length)
        wide = span_means(F.pad(values, (0, 6), value=7.0), F.pad(real, (0, 6)), 4)
        assert torch.allclose(wide, F.adaptive_avg_pool1d(values, 4), **CLOSE)

    def test_layers_are_torchs(self) -> None:
        layers = nn.Sequential(nn.Conv1d(2, 8, 5, padding=2), nn.GroupNorm(4, 8), nn.ReLU(),
                               nn.MaxPool1d(2, ceil_mode=True))  # fmt: skip
        for length in range(2, 14):
            values = torch.randn(3, 2, length)
            wide, real = through(layers, F.pad(values, (0, 5)), F.pad(torch.ones(3, length), (0, 5)))
            kept = -(-length // 2)
            assert real.sum(1).tolist() == [kept] * 3
            assert torch.allclose(wide[..., :kept], layers(values), **CLOSE) and not wide[..., kept:].any()


class TestSignalsWithAMask(EncoderContract):
    @pytest.fixture
    def options(self) -> Any:
        augment = {"scaling": 0.1, "jitter": 0.1, "time_mask": 9}
        return build("encoder", {"name": "signal", "length": 30, "other_lengths": "mask", "windows": 2,
                                 "augment": augment})  # fmt: skip

    @pytest.fixture
    def value(self) -> Any:
        return signal(45)


class TestSoundsWithAMask(EncoderContract):
    @pytest.fixture
    def options(self) -> Any:
        return build("encoder", {"name": "spectrogram", "seconds": 0.3, "other_lengths": "mask", "windows": 4,
                                 "stored": "float16", "augment": {"time_mask": 0.1}})  # fmt: skip

    @pytest.fixture
    def value(self) -> Any:
        return sound(5000)
