"""Reads slices of NIfTI volumes with nibabel (the optional extra "nifti")."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.shards.own_files.slices import Choice, Slices, check_size, places
from deploy.shards.own_files.windows import Window

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

PERCENTILES = (0.5, 99.5)
"""The percentiles of the used slices that become black and white when there is no window."""
MOST_VOLUME = 1_000_000_000
"""The maximum size of a volume in bytes: 500 million voxels of 16 bits."""
VERTICAL, DEPTH = 2, 1
"""The axes from the feet to the head and from back to front, in the order of RAS+ (right, front, head)."""


def read_nifti(path: Path, window: Window | None, choice: Choice | None) -> Slices:
    """The chosen axial slices of a volume, from the feet to the head, as radiologists see them: the front above, and
    the patient's right side on the left. window: the range of the values after the file's slope and intercept; None for
    the percentiles of the used slices. Values that are not finite are black.

    Raises ValueError when the file cannot be decoded, is too large, is not a volume of real numbers, or has several
    slices and there is no choice.
    """
    import nibabel
    from nibabel.imageglobals import LoggingOutputSuppressor

    try:
        with LoggingOutputSuppressor():  # it writes to the terminal
            volume = nibabel.load(path)
            if not isinstance(volume, nibabel.Nifti1Image):
                raise ValueError("it is not a NIfTI file")
            values = np.stack(list(_planes(volume, choice)))
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # nibabel raises many kinds of errors for a damaged file
        raise ValueError(f"cannot be decoded as NIfTI ({type(error).__name__}: {error})") from error
    return Slices([(window or _usual(values)).grey(one) for one in _without_gaps(values)])


def _planes(volume: "Nifti1Image", choice: Choice | None) -> Iterable[NDArray[Any]]:
    """The chosen slices [H, W] in the file's values."""
    import nibabel

    shape = _checked_shape(volume)
    order = nibabel.io_orientation(volume.affine)  # for each axis of the file: axis of RAS+, 1 or -1
    if not np.isfinite(order).all():
        raise ValueError("its header does not contain the directions of its axes")
    axis = int(np.flatnonzero(order[:, 0] == VERTICAL)[0])
    left = [other for other in range(3) if other != axis]
    chosen = places(choice, shape[axis])
    check_size(shape[left[0]], shape[left[1]], len(chosen))
    for place in chosen:
        where: list[Any] = [slice(None)] * len(volume.shape)
        where[3:] = [0] * len(where[3:])
        if axis < len(where):
            where[axis] = place if order[axis, 1] > 0 else shape[axis] - 1 - place
        plane = np.asarray(volume.dataobj[tuple(where)])
        for number, other in enumerate(left):
            plane = np.flip(plane, number) if order[other, 1] < 0 else plane
        yield (plane if order[left[0], 0] == DEPTH else plane.T)[::-1, ::-1]  # rows to the back, columns to the left


def _checked_shape(volume: "Nifti1Image") -> tuple[int, int, int]:
    """The three sides of a volume."""
    shape, kind = tuple(map(int, volume.shape)), volume.get_data_dtype()
    if len(shape) < 2 or math.prod(shape[3:]) != 1:
        raise ValueError(f"a volume of 3 dimensions is needed, this file has {' x '.join(map(str, shape))}")
    if kind.kind not in "iuf":
        raise ValueError(f"a volume of real numbers is needed, not of {kind}")
    if math.prod(shape) * kind.itemsize > MOST_VOLUME:
        raise ValueError(f"too large: {' x '.join(map(str, shape))} voxels")
    high = shape[2] if len(shape) > 2 else 1
    return shape[0], shape[1], high


def _usual(values: NDArray[Any]) -> Window:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("its values are not finite")
    low, high = np.percentile(finite, PERCENTILES)
    return Window(float(low), float(high))


def _without_gaps(values: NDArray[Any]) -> NDArray[Any]:
    return values if np.isfinite(values).all() else np.where(np.isfinite(values), values, -np.inf)
