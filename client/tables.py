"""The description of a site's tables: their columns, and the count, mean and variance of each number."""

from collections.abc import Sequence

import numpy as np

from common.columns import Columns, Described, Number
from common.data.shard import Record
from common.modality import Modality


def description(columns: Columns, records: Sequence[Record], modality: Modality, fewest: int) -> dict[str, Described]:
    """The description of the columns of a table, without any cell.

    records: all examples of the shard. With a part that depends on the experiment's seed, a server could compare the
    statistics of several parts, and so find a single cell. Missing and implausible numbers are not counted. fewest: a
    column with fewer numbers has neither count, mean nor variance, because they could reveal a number.
    """
    rows = [record.rows[modality].cells for record in records if modality in record.rows]
    told = {}
    for name, column in sorted(columns.items()):
        told[name] = Described(column=column)
        if isinstance(column, Number):
            numbers = [column.read(cells[name]) for cells in rows if name in cells]
            plausible = np.array([number for number in numbers if column.plausible(number)])
            if len(plausible) >= fewest:
                mean, variance = float(plausible.mean()), float(plausible.var())
                told[name] = Described(column=column, count=len(plausible), mean=mean, variance=variance)
    return told
