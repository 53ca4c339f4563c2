"""breast-cancer: measurements of cell nuclei in three tables, and whether the tumour is benign. It needs no network.

W. H. Wolberg, W. N. Street, O. L. Mangasarian, "Breast Cancer Wisconsin (Diagnostic)", UCI, 1995,
https://doi.org/10.24432/C5DW2B, as shipped with scikit-learn. Each of ten properties of the nuclei in a picture, such
as the radius, has a mean, a standard error and a worst value (the mean of the three largest ones).
"""

from collections.abc import Mapping
from functools import cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.datasets import load_breast_cancer

from common.columns import Columns, Number
from common.data.shard import Example, Media
from common.datasets.base import DataSet
from common.modality import Modality
from common.seeding import rng

PROPERTIES = ("radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points",
              "symmetry", "fractal dimension")  # fmt: skip
"""The columns of each table, in the order of scikit-learn."""
EACH = 5
"""Every fifth example is in the test part."""


class BreastCancer(DataSet):
    """Three tables with the same ten columns."""

    modalities: ClassVar[tuple[str, ...]] = ("error", "mean", "worst")
    licence: ClassVar[str] = "CC BY 4.0 (UCI)"

    missing_cells: float = Field(0.0, ge=0, lt=1)
    """Share of the cells that are removed, at random."""

    @property
    def classes(self) -> list[str]:
        """The diagnoses."""
        return ["benign", "malignant"]

    @property
    def columns(self) -> Mapping[Modality, Columns]:
        """Numbers without units. Lengths are in pixels of the pictures."""
        return {m: {name: Number(type="number") for name in PROPERTIES} for m in self.modalities}

    def examples(self, part: str, seed: int) -> list[Example]:
        """One example per tumour. There are no natural groups."""
        cells, benign = _load()
        chosen = [i for i in range(len(cells)) if (i % EACH == 0) == (part == "test")]
        return [self._example(i, cells[i], bool(benign[i]), seed) for i in chosen]

    def _example(self, number: int, cells: NDArray[np.float64], benign: bool, seed: int) -> Example:
        known = rng(seed, "cells", number).random(cells.shape) >= self.missing_cells
        rows = {
            m: {name: cells[t, i].item() if known[t, i] else None for i, name in enumerate(PROPERTIES)}
            for t, m in enumerate(("mean", "error", "worst"))
        }
        kept = {m: Media.row(row) for m, row in rows.items() if any(cell is not None for cell in row.values())}
        return Example(f"tumour-{number:03d}", "benign" if benign else "malignant", kept)


@cache
def _load() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Numbers [569, 3, 10], and 1 for each benign tumour [569]."""
    numbers, benign = load_breast_cancer(return_X_y=True)
    return numbers.reshape(len(numbers), 3, len(PROPERTIES)), benign
