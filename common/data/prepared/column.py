"""The prepared values of one modality of a shard."""

from dataclasses import dataclass

from torch import Tensor

from common.findings import Findings
from common.rows import BLANK, Source


@dataclass(frozen=True)
class Column:
    """The values of those rows of the shard that have a readable value.

    index: [R] int64, for each row of the shard the number of its value in `values`; BLANK for a row without a value.
    findings: the findings from reading the values.
    """

    index: Tensor
    values: Source
    findings: Findings

    @property
    def usable(self) -> Tensor:
        """A mask [R] bool of the rows that have a value."""
        return self.index != BLANK
