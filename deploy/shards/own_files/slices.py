"""Slices of volumes and frames of multi-frame files, as pixels of 8 bits."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.media.values import encode_array, encode_image
from common.modality import Modality

MIDDLE = "middle"
MOST_PIXELS = 70_000_000
"""The maximum number of pixels of the used slices of one file together."""
MOST_SLICES = 256
"""The maximum number of slices of one value. The encoder `frames` uses no more."""


@dataclass(frozen=True)
class Slices:
    """The slices of one file that are used.

    pixels: [H, W] or [H, W, 3] uint8 for each slice. remarks: sentences about the file that importing shows. kept: tags
    that are counted in shard.json, with their values. patient: the values that identify the patient; they are compared
    with the example's id, and never written.
    """

    pixels: Sequence[NDArray[np.uint8]]
    remarks: Sequence[str] = ()
    kept: Mapping[str, str] = field(default_factory=dict)
    patient: Sequence[str] = ()

    def encoded(self, as_frames: bool) -> bytes:
        """A PNG file with the only slice, or a .npy file with frames [T, H, W, 3]."""
        if not as_frames:
            return encode_image(self.pixels[0])
        frames = [one if one.ndim == 3 else np.repeat(one[:, :, None], 3, axis=2) for one in self.pixels]
        return encode_array(np.stack(frames))


def check_size(height: int, width: int, count: int) -> None:
    """Raises ValueError when `count` slices are too large to be decoded."""
    if height * width * count > MOST_PIXELS:
        raise ValueError(f"too large: {width} x {height} pixels, {count} slice{'s' * (count != 1)}")


@dataclass(frozen=True)
class Choice:
    """The slices of a file that are used: the middle one as a picture, or `count` slices as frames."""

    count: int | None = None

    @property
    def as_frames(self) -> bool:
        """Whether the slices are stored as frames."""
        return self.count is not None

    def places(self, total: int) -> list[int]:
        """The indices of the slices: the middles of `count` equal parts. A file with fewer slices gives all of them."""
        count = min(self.count or 1, total)
        return [(2 * part + 1) * total // (2 * count) for part in range(count)]


def places(choice: Choice | None, total: int) -> list[int]:
    """The indices of the slices that are used.

    Raises ValueError when there are several slices and no choice was made.
    """
    if choice is None and total > 1:
        raise ValueError(
            f"has {total} slices or frames: use --volume with MODALITY=middle for a picture of the middle one, or with "
            "MODALITY=COUNT for COUNT slices as frames"
        )
    if total < 1:
        raise ValueError("has no slices")
    return (choice or Choice()).places(total)


def choices_of(pairs: Mapping[Modality, str], known: Collection[Modality], mistakes: list[str]) -> dict[str, Choice]:
    """The choices of --volume by modality. known: the modalities with files."""
    choices = {}
    for modality, said in pairs.items():
        if said != MIDDLE and not (said.isdecimal() and 1 <= int(said) <= MOST_SLICES):
            mistakes.append(f"--volume: {said!r} is neither {MIDDLE!r} nor a number from 1 to {MOST_SLICES}")
        elif modality not in known:
            mistakes.append(f"--volume: {modality} has no folder and no column of files")
        else:
            choices[modality] = Choice(None if said == MIDDLE else int(said))
    return choices
