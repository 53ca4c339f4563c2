"""The prepared values of one modality of a shard."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.findings import Findings
from common.rows import BLANK


@dataclass(frozen=True)
class Column:
    """values [n, ...] of n of the shard's rows, whose numbers are `rows`, ascending. They may lie in a mapped file.

    findings: what reading them showed.
    """

    rows: list[int]
    values: Tensor
    findings: Findings

    def places(self, wanted: Sequence[int]) -> Tensor:
        """Where in `values` those of the shard's rows are, BLANK for those that are not there."""
        place = {row: i for i, row in enumerate(self.rows)}
        return torch.tensor([place.get(row, BLANK) for row in wanted])
