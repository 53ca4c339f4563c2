"""A comparison for the terminal and for scripts."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.table import Table
from rich.text import Text

from common.words.figures import LEADING, NOT_SHARES, heading, title
from common.words.units import human
from deploy.study.bench.statistics import CONFIDENCE, Difference, Summary
from deploy.study.comparison.rows import Comparison, Row
from deploy.study.form import Form
from server.report.page import duration

NONE = "–"


def table(comparison: Comparison) -> Table:
    """A table with one row per group of runs, and one line per measure, so that many modalities fit a terminal."""
    shown = Table(show_lines=True)
    shown.add_column("runs", overflow="fold")
    for head in ("measure", "" if comparison.metric in NOT_SHARES else "%", "Δ to the first row"):
        shown.add_column(head, no_wrap=True, justify="left" if head == "measure" else "right")
    for row in comparison.rows:
        means, deltas = zip(*shares(comparison, row), strict=True)
        cells = ("\n".join(lines) for lines in (facts(row), heads(comparison), means, deltas))
        shown.add_row(*map(Text, cells))
    return shown


def heads(comparison: Comparison) -> list[str]:
    """The headings of the measures."""
    return [_subset_or_title(name) for name in comparison.measures]


def _subset_or_title(name: str) -> str:
    metric, colon, subset = name.partition(":")
    return subset if colon else title(metric)


def facts(row: Row) -> Iterator[str]:
    """Yield lines about a row: runs, seeds, differing settings, and cost."""
    yield row.label
    yield f"seed{'s' * (len(row.seeds) > 1)} {', '.join(map(str, row.seeds)) or NONE}"
    yield from (f"{key}: {value}" for key, value in row.settings.items())
    if rounds := row.measure("rounds"):
        moved, time = row.measure("bytes"), row.measure("seconds")
        assert moved and time
        yield f"{rounds.mean:g} rounds, {human(moved.mean)}, {duration(time.mean)}"


def shares(comparison: Comparison, row: Row) -> Iterator[tuple[str, str]]:
    """Yield each measure's mean and its difference to the first row."""
    for name in comparison.measures:
        form = Form.of(name)
        yield _mean(form, row.measure(name)), _delta(form, row.difference(name, comparison.reference))


def _mean(form: Form, found: Summary | None) -> str:
    if found is None:
        return NONE
    spread = f" ± {form.number(found.deviation)}" if len(found.values) > 1 else ""
    return form.number(found.mean) + spread


def _delta(form: Form, found: Difference | None) -> str:
    return (
        f"{form.number(found.mean, '+')} [{form.number(found.low, '+')}, {form.number(found.high, '+')}]"
        if found
        else ""
    )


def legend(comparison: Comparison) -> str:
    """The explanation of the figures."""
    second = f"{title(LEADING[comparison.task][1])} with all modalities"
    unit = "" if comparison.metric in NOT_SHARES else ", in %"
    text = f"{heading(comparison.metric)} by available modalities, and {second}{unit} after the last round"
    text += "; ±: standard deviation over seeds" if any(len(row.seeds) > 1 for row in comparison.rows) else ""
    if any(row.difference(name, comparison.reference) for row in comparison.rows for name in comparison.measures):
        share, points = f"{CONFIDENCE:.0%}", " in points" if unit else ""
        return f"{text}. Δ: difference to the first row{points}, paired by seed, with its {share} confidence interval."
    if len(comparison.rows) > 1:
        text += ". Differences need at least two seeds in common"
    return f"{text}."


def as_json(comparison: Comparison) -> dict[str, Any]:
    """JSON values of the table, with the values of each seed."""
    return {"rows": [_json_row(comparison, row) for row in comparison.rows], "notes": comparison.notes()}


def _json_row(comparison: Comparison, row: Row) -> dict[str, Any]:
    measures = {}
    for name in (*comparison.measures, "rounds", "bytes", "seconds"):
        if (found := row.measure(name)) is not None:
            difference = row.difference(name, comparison.reference)
            measures[name] = {**asdict(found), "difference": asdict(difference) if difference else None}
    return {
        "runs": [run.label for run in row.runs],
        "seeds": row.seeds,
        "settings": dict(row.settings),
        "measures": measures,
    }
