"""Prepared inputs are compact, and networks read the same numbers as before."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from common.config.component import build
from common.encoders.image import pixels_of, scaled
from common.media.sounds import Sound

NOISE = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
SOUND = Sound(NOISE.reshape(-1, 1) / 9, 8000)
STORED = [({"name": "signal", "width": 8}, NOISE), ({"name": "spectrogram", "seconds": 0.1, "width": 8}, SOUND)]


def test_every_pixel_is_the_same_number_as_in_numpy() -> None:
    every = np.arange(256, dtype=np.uint8)
    assert scaled(torch.from_numpy(every)).numpy().tobytes() == (every.astype(np.float32) / 127.5 - 1).tobytes()
    assert torch.equal(scaled(torch.from_numpy(every)), torch.from_numpy(every).float() / 127.5 - 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_those_of_the_picture(channels: int) -> None:
    shape = (9, 9, 3)[: 2 if channels == 1 else 3]
    drawn = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    made = pixels_of(Picture.fromarray(drawn), 9, channels)
    assert made.dtype == torch.uint8 and made.is_contiguous()
    assert np.array_equal(made.numpy(), np.moveaxis(drawn.reshape(9, 9, channels), 2, 0))


@pytest.mark.parametrize(("name", "shape"), [("image", (1, 28, 28)), ("frames", (3, 3, 28, 28))])
def test_pictures_and_frames_are_kept_as_bytes(name: str, shape: tuple[int, ...]) -> None:
    blank = build("encoder", {"name": name}).build().blank()
    assert (blank.shape, blank.dtype) == (shape, torch.uint8)


@pytest.mark.parametrize(("options", "raw"), STORED, ids=["signal", "spectrogram"])
def test_float16_is_the_rounded_value_and_the_network_computes_in_float32(options: dict[str, Any], raw: Any) -> None:
    torch.manual_seed(0)
    whole = build("encoder", options).build()
    half = build("encoder", {**options, "stored": "float16"}).build()
    half.load_state_dict(whole.state_dict())
    prepared = half.prepare(raw)
    assert prepared.dtype == half.blank().dtype == torch.float16
    assert torch.equal(prepared, whole.prepare(raw).half())
    assert torch.equal(half(prepared[None]), whole(prepared[None].float()))


def test_a_signal_that_float16_cannot_hold_is_refused() -> None:
    encoder = build("encoder", {"name": "signal", "stored": "float16", "scale": 2.0}).build()
    with pytest.raises(ValueError, match="values up to 200000 are too large for float16: use a larger scale"):
        encoder.prepare(np.full((50, 3), 200_000.0, np.float32))
