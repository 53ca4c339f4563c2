"""`fedmosaic bench speed`: all measurements in one run, and a table with figures and goals."""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich.table import Table
from rich.text import Text

from common.config.component import unknown
from common.errors import ConfigError
from common.hardware.computing import compute_deterministically
from deploy.study.bench.speed.bytes_sent import Bytes
from deploy.study.bench.speed.cka import CKA
from deploy.study.bench.speed.clients import Clients
from deploy.study.bench.speed.features import Features
from deploy.study.bench.speed.measurement import Measurement, Row, row
from deploy.study.bench.speed.memory import Memory
from deploy.study.bench.speed.rounds import EmptyRound, LargeRound
from deploy.terminal import terminal

MEASUREMENTS: tuple[type[Measurement], ...] = (EmptyRound, LargeRound, Memory, Features, CKA, Clients, Bytes)


def run(only: list[str] | None, repeats: int, out: Path | None) -> list[Row]:
    """Measure, show the table, and write the rows as JSON.

    Raises ConfigError, RunError.
    """
    names = [kind.name for kind in MEASUREMENTS]
    if mistakes := [unknown("measurement", name, names) for name in only or [] if name not in names]:
        raise ConfigError("bench speed", mistakes)
    if repeats < 1:
        raise ConfigError("bench speed", [f"--repeats must be at least 1, not {repeats}"])
    compute_deterministically()
    console, rows = terminal(), []
    for kind in MEASUREMENTS:
        if only is None or kind.name in only:
            console.print(f"measuring {kind.name}: {kind.what}", highlight=False)
            rows.append(measure(kind(), repeats))
    console.print(table(rows))
    console.print(_load(), highlight=False)
    if out is not None:
        out.write_text(json.dumps([line.to_json() for line in rows], indent=1) + "\n", encoding="utf-8")
    return rows


def measure(measurement: Measurement, repeats: int) -> Row:
    """The row of one measurement."""
    with tempfile.TemporaryDirectory(prefix="fedmosaic-speed-", ignore_cleanup_errors=True) as work:
        return row(measurement, list(measurement.samples(repeats, Path(work))))


def table(rows: Iterable[Row]) -> Table:
    """The rows as a table."""
    shown = Table(title="Speed, medians over the repeats", title_justify="left", show_lines=True)
    for heading in ("what", "unit", "stock", "bare", "ours", "ratio", "spread", "goal", "met"):
        shown.add_column(heading, justify="left" if heading in ("what", "unit", "goal") else "right")
    for line in rows:
        figures = [line.stock, line.bare, line.ours, line.ratio, line.spread]
        numbers = ["" if value is None else f"{value:.3g}" for value in figures]
        goal = f"{line.ratio_of} {line.goal}"
        shown.add_row(line.what, line.unit, *numbers, goal, "yes" if line.met else Text("no", style="red"))
    return shown


def _load() -> str:
    """The load of the machine, because figures from a busy machine are unreliable."""
    return f"load of the last 15 minutes: {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores"
