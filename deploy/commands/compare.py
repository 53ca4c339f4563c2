"""`fedmosaic compare`: compare runs side by side."""

import argparse
from pathlib import Path
from typing import Any

from deploy.commands.shared.given import runs_there


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic compare`."""
    parser = commands.add_parser(
        "compare",
        help="compare runs: settings that differ, figures, paired differences",
        description="Compare runs. Runs that differ only in the seed share one row. The first row is the reference.",
        epilog="example: fedmosaic compare runs/fedavg-* runs/fedcmi-* --out comparison.html",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run folder")
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="NAME",
        help="one row per value of this option or section, e.g. method.name; other differences do not count "
        "(repeatable)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="also write a page with curves to this file")
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of the table, with the values of each seed"
    )
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    runs_there("compare", options.runs)
    from deploy.study.comparison.rows import compare

    comparison = compare(options.runs, options.by)
    if options.out:
        from deploy.study.comparison.page import write_page

        write_page(options.out, comparison)
    if options.json:
        import json

        from deploy.study.comparison.table import as_json

        print(json.dumps(as_json(comparison), indent=1))
    else:
        _show(comparison, options.out)


def _show(comparison: Any, out: Path | None) -> None:
    from deploy.study.comparison.table import legend, table
    from deploy.terminal import terminal

    console = terminal()
    console.print(table(comparison))
    for line in (legend(comparison), *comparison.notes(), *([f"page: {out}"] if out else [])):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
