"""Agreement on the columns of a table: those of all sites, with the mean and standard deviation of each number."""

import math
from collections.abc import Iterable, Mapping, Sequence

from common.columns import MOST_CATEGORIES, Agreed, Category, Described, Number, ScaledNumber
from common.config.component import MOST

Told = Mapping[str, Described]
"""By site, the description of one column."""


def agree(sites: Mapping[str, Mapping[str, Described]]) -> tuple[dict[str, Agreed], list[str]]:
    """The agreed columns by name, and the names of the columns of numbers without statistics, which cannot be used.

    sites: by site, its columns. A column needs not be at every site. The mean and the standard deviation are those of
    the numbers of all sites together.
    """
    agreed, unknown = dict[str, Agreed](), list[str]()
    for name in sorted({name for columns in sites.values() for name in columns}):
        told = {site: columns[name] for site, columns in sorted(sites.items()) if name in columns}
        if (column := _agreed(told)) is None:
            unknown.append(name)
        else:
            agreed[name] = column
    return agreed, unknown


def clashes(sites: Mapping[str, Mapping[str, Described]]) -> Iterable[str]:
    """Columns whose type or unit differs between sites, with the sites, and those with too many categories."""
    for name in sorted({name for columns in sites.values() for name in columns}):
        forms: dict[str, list[str]] = {}
        for site, columns in sorted(sites.items()):
            if name in columns:
                forms.setdefault(_form(columns[name].column), []).append(site)
        if len(forms) > 1:
            yield f"column {name} is " + ", but ".join(f"{form} at {', '.join(at)}" for form, at in forms.items())
        elif (count := len(_values(columns[name].column for columns in sites.values() if name in columns))) > (
            MOST_CATEGORIES
        ):
            (at,) = forms.values()
            yield f"column {name} has {count} categories at {', '.join(at)} together, at most {MOST_CATEGORIES}"


def _form(column: Number | Category) -> str:
    if isinstance(column, Category):
        return "a category"
    return f"a number with the unit {column.unit}" if column.unit else "a number without a unit"


def _values(columns: Iterable[Number | Category]) -> set[str]:
    """The categories of all columns."""
    return {value for column in columns if isinstance(column, Category) for value in column.values}


def _agreed(told: Told) -> Agreed | None:
    columns = [one.column for one in told.values()]
    if isinstance(columns[0], Category):
        return Category(type="category", values=sorted(_values(columns)))
    if (scale := _pooled(told)) is None:
        return None
    ranges = [column.range for column in columns if isinstance(column, Number)]
    return ScaledNumber(type="number", unit=columns[0].unit, range=_hull(ranges), mean=scale[0], std=scale[1])


def _pooled(told: Told) -> tuple[float, float] | None:
    """The mean and the standard deviation of all numbers together, or None without any. A constant column is divided by
    1."""
    parts = [
        (one.count, one.mean, one.variance)
        for one in told.values()
        if one.count and one.mean is not None and one.variance is not None
    ]
    total = sum(count for count, _, _ in parts)
    if not total:
        return None
    mean = math.fsum(count * own for count, own, _ in parts) / total
    variance = math.fsum(count * (spread + (own - mean) ** 2) for count, own, spread in parts) / total
    return mean, min(math.sqrt(variance), float(MOST)) or 1.0  # only invented statistics have a larger deviation


def _hull(ranges: Sequence[list[float] | None]) -> list[float] | None:
    """The smallest range that contains all ranges; None if a site finds every number plausible."""
    known = [one for one in ranges if one is not None]
    if len(known) < len(ranges):
        return None
    return [min(low for low, _ in known), max(high for _, high in known)]
