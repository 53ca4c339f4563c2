"""`fedmosaic bench memory`: the peak memory of a site by the number of its examples."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.table import Table

from common.data.prepared import cache
from common.errors import RunError
from deploy.study.bench.site_memory.examples import write_shard
from deploy.terminal import terminal

WAYS: dict[str, dict[str, str]] = {"cache": {}, "decoded": {cache.GIGABYTES_VARIABLE: "0"}}
"""By name, the settings of the site."""
COLUMNS = ("before", "private", "whole", "cache", "prepare_seconds", "train_seconds")


@dataclass(frozen=True)
class Row:
    """The figures of a site, in megabytes and seconds. before: private memory with all imports, before the shard is
    opened. private, whole: see `Peak`. cache: size of the cached files."""

    way: str
    examples: int
    before: float
    private: float
    whole: float
    cache: float
    prepare_seconds: float
    train_seconds: float


def run(counts: Sequence[int], work: Path | None, out: Path | None) -> list[Row]:
    """Measure, show the table, and write the rows as JSON. work: a folder with room for the shards, which are deleted
    at the end.

    Raises RunError.
    """
    console, rows = terminal(), []
    with tempfile.TemporaryDirectory(prefix="fedmosaic-memory-", dir=work, ignore_cleanup_errors=True) as folder:
        for count in counts:
            shard = Path(folder) / str(count)
            console.print(f"writing a shard with {count:,} examples", highlight=False)
            write_shard(shard, count)
            for way in WAYS:
                console.print(f"measuring {count:,} examples, {way}", highlight=False)
                rows.append(measure(way, count, shard))
    console.print(table(rows))
    if out is not None:
        out.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return rows


def measure(way: str, count: int, shard: Path) -> Row:
    """The figures of a new process.

    Raises RunError.
    """
    shutil.rmtree(shard / cache.CACHE, ignore_errors=True)
    command = [sys.executable, "-m", "deploy.study.bench.site_memory.process", str(shard)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **WAYS[way]})
    if done.returncode:
        raise RunError(f"{count} examples, {way}: {done.stderr[-800:]}")
    return Row(way, count, **json.loads(done.stdout))


def table(rows: Sequence[Row]) -> Table:
    """The rows as a table."""
    shown = Table(title="Memory of a site in MB, and seconds of an epoch", title_justify="left")
    for heading in ("values", "examples", *COLUMNS):
        shown.add_column(heading.replace("_", " "), justify="left" if heading == "values" else "right")
    for row in rows:
        shown.add_row(row.way, f"{row.examples:,}", *(f"{getattr(row, name):,.0f}" for name in COLUMNS))
    return shown
