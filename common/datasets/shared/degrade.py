"""Noise and fewer pixels, which make one modality worse than another. They change the source examples before shards are
written."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def add_noise(signal: NDArray[np.float32], snr_db: float | None, rng: np.random.Generator) -> NDArray[np.float32]:
    """The signal with white Gaussian noise at a signal-to-noise ratio in dB. None adds no noise.

    The power of the signal is its variance, so the brightness of an image does not count as power.
    """
    if snr_db is None:
        return signal
    power = float(np.var(signal)) / 10 ** (snr_db / 10)
    return signal + rng.normal(0.0, np.sqrt(power), signal.shape).astype(np.float32)


def fewer_pixels(pixels: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    """The image [H, W] reduced to size x size by area averaging. None, or a size that is not smaller, changes
    nothing."""
    if size is None or size >= max(pixels.shape[:2]):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BOX))


def noisy_image(
    pixels: NDArray[np.uint8], size: int | None, snr_db: float | None, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """The image with fewer pixels and then noise, like the image of a worse sensor."""
    small = fewer_pixels(pixels, size).astype(np.float32)
    return np.clip(np.rint(add_noise(small, snr_db, rng)), 0, 255).astype(np.uint8)


def noisy_sound(samples: NDArray[np.float32], snr_db: float | None, rng: np.random.Generator) -> NDArray[np.float32]:
    """The recording with noise at the given ratio, scaled down if it would clip."""
    noisy = add_noise(samples, snr_db, rng)
    return noisy / max(1.0, float(np.abs(noisy).max(initial=0.0)))
