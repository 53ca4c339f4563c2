"""Pixels as the values that a pre-trained network was trained with."""

from functools import lru_cache

import torch
from torch import Tensor


def normalised(pixels: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Tensor:
    """Values [B, C, H, W] float32 for pixels from 0 to 255. mean, deviation: by channel, of values from 0 to 1."""
    return (pixels / 255 - _by_channel(mean, pixels.device)) / _by_channel(deviation, pixels.device)


@lru_cache(maxsize=32)
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """[C, 1, 1]. It is kept, because a copy to the device in every step would wait for the device."""
    return torch.tensor(values, device=device).reshape(-1, 1, 1)
