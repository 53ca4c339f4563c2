"""`fedmosaic bench train`: all workloads in one run, and a table of ratios."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from common.config.component import unknown
from common.errors import ConfigError, RunError
from common.hardware.computing import cores
from common.hardware.device import described, find_device
from deploy.study.bench.training.workloads import workloads
from deploy.terminal import terminal

EPOCHS, BATCH = 4, 32
Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """The medians of one workload. rate: our examples per second. ratio: our rate divided by that of the plain loop;
    low, high: over the repeats. memory, plain_memory: bytes. first, plain_first: seconds until the first step. scaling,
    plain_scaling: the rate on all cores divided by the rate on one; None on a GPU."""

    what: str
    rate: float
    ratio: float
    low: float
    high: float
    memory: float
    plain_memory: float
    first: float
    plain_first: float
    scaling: float | None
    plain_scaling: float | None


def run(only: Sequence[str] | None, repeats: int, out: Path | None, options: dict[str, Any]) -> list[Row]:
    """Measure, show the table, and write the rows as JSON. options: device, precision, batch_size, and small for tests.

    Raises ConfigError, DeviceError, RunError.
    """
    known = workloads(options["batch_size"], EPOCHS, options["precision"], False, options["small"])
    if mistakes := [unknown("measurement", name, list(known)) for name in only or [] if name not in known]:
        raise ConfigError("bench train", mistakes)
    if repeats < 1:
        raise ConfigError("bench train", [f"--repeats must be at least 1, not {repeats}"])
    device, console, rows = find_device(options["device"]), terminal(), []
    console.print(
        f"on {described(device)}, {options['precision']}, batches of {options['batch_size']}", highlight=False
    )
    for name, workload in known.items():
        if only is None or name in only:
            console.print(f"measuring {name}: {workload.what}", highlight=False)
            rows.append(_row(name, workload.what, repeats, options, on_processor=device.type == "cpu"))
    console.print(table(rows))
    if out is not None:
        out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return rows


def _row(name: str, what: str, repeats: int, options: dict[str, Any], on_processor: bool) -> Row:
    """Measure one workload. The two loops alternate, so that a change of the machine's speed affects both."""
    all_cores = {**options, "epochs": EPOCHS, "deterministic": False, "threads": 0}
    one_core = {**all_cores, "threads": 1}
    pairs, single = [], []
    for _ in range(repeats):
        pairs.append((_train("ours", name, all_cores), _train("plain", name, all_cores)))
        if on_processor and cores() > 1:
            single.append((_train("ours", name, one_core), _train("plain", name, one_core)))
    ratios = [ours["rate"] / plain["rate"] for ours, plain in pairs]

    def median(which: int, key: str, of: list[tuple[Figures, Figures]]) -> float:
        return statistics.median(pair[which][key] for pair in of)

    scaling = [median(i, "rate", pairs) / median(i, "rate", single) if single else None for i in (0, 1)]
    return Row(
        what,
        median(0, "rate", pairs),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        median(0, "memory", pairs),
        median(1, "memory", pairs),
        median(0, "first", pairs),
        median(1, "first", pairs),
        *scaling,
    )


def _train(kind: str, name: str, options: dict[str, Any]) -> Figures:
    """The figures of one training in a process of its own.

    Raises RunError when it fails.
    """
    command = [sys.executable, "-m", "deploy.study.bench.training.process", kind, name, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{name}: {done.stderr.strip()[-800:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table."""
    shown = Table(title="Our client and a plain PyTorch loop, medians", title_justify="left", show_lines=True)
    for heading in ("what", "examples/s", "ours / plain", "memory, MB", "first step, s", "cores' worth"):
        shown.add_column(heading, justify="left" if heading == "what" else "right")
    for row in rows:
        worth = "" if row.scaling is None else f"{row.scaling:.2f} / {row.plain_scaling:.2f}"
        shown.add_row(
            row.what,
            f"{row.rate:.0f}",
            f"{row.ratio:.3f} ({row.low:.3f} to {row.high:.3f})",
            f"{row.memory / 1e6:.0f} / {row.plain_memory / 1e6:.0f}",
            f"{row.first:.2f} / {row.plain_first:.2f}",
            worth,
        )
    return shown
