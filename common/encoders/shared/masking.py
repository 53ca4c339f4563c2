"""Random masks over time and frequency.

D. S. Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", Interspeech 2019.
"""

from torch import Tensor
from torchaudio.functional import mask_along_axis


def masked(values: Tensor, longest: int, dim: int) -> Tensor:
    """The values [..., H, W] float32 with zeros in a random span of 0 to `longest` places of a dimension, -2 or -1. It
    draws from torch's global CPU generator."""
    # torchaudio masks fewer places than its argument.
    spanned: Tensor = mask_along_axis(values, longest + 1, 0.0, values.dim() + dim)
    return spanned
