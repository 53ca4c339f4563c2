"""The prepared values of one modality of a shard."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from common.findings import Findings
from common.rows import BLANK


@dataclass(frozen=True)
class Column:
    """The values of those rows of the shard that have a value.

    rows: the n row numbers, ascending. values: [n, ...], may be mapped from a file. findings: the findings from reading
    the values.
    """

    rows: list[int]
    values: Tensor
    findings: Findings

    def places(self, wanted: Sequence[int]) -> Tensor:
        """The index in `values` for each of the wanted rows of the shard; BLANK for a row without a value."""
        place = {row: i for i, row in enumerate(self.rows)}
        return torch.tensor([place.get(row, BLANK) for row in wanted])
