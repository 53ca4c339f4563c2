"""The terminal output of a run: live progress, and the table at the end."""

import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from common.config.experiment import Experiment
from common.modality import subset_name
from common.words.best_model import best_in_words, warning_about
from common.words.figures import LEADING, MAIN, title, value
from common.words.printable import printable
from common.words.units import human
from deploy.terminal import description, terminal
from server.record.run_folder import read_rounds, read_status
from server.sites.attention import concerns, findings_of
from server.sites.measured import measured_on_little
from server.sites.standing import TAKES_PART, Standing, changes, standings
from server.trackers.shared.failures import failures

POLL_SECONDS = 0.2
LONG_SECONDS = 8.0
"""Seconds of waiting for the same thing before a line reports it."""


class Followed(Protocol):
    """A run in another process. run_folder: the folder of its results, or None if it is on another machine."""

    run_folder: Path | None

    def wait(self) -> Iterator[None]:
        """Yield repeatedly until the run has ended."""


class Beside:
    """The display of a run in this thread. `with Beside(folder, experiment): ...` shows the run from another thread."""

    def __init__(self, run_folder: Path, experiment: Experiment) -> None:
        self.run_folder: Path | None = run_folder
        self._ended = threading.Event()
        self._thread = threading.Thread(target=follow, args=(self, experiment), name="display")

    def wait(self) -> Iterator[None]:
        """Yield until the run has ended."""
        while not self._ended.wait(POLL_SECONDS):
            yield

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def follow(launched: Followed, experiment: Experiment) -> None:
    """Show each round until the run ends. If the output is not a terminal, print one line per round.

    Raises RunError when the run failed.
    """
    console = terminal()
    shown: list[dict[str, Any]] = []
    columns = (
        description(),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} rounds"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("waiting for the server to start", total=experiment.federation.rounds)
        goings_on = GoingsOn(console, progress, task)
        for _ in chain(launched.wait(), [None]):  # None: look once more after the end
            for line in _rounds(launched)[len(shown) :]:
                _show_round(console, progress, task, experiment, line)
                _say(console, changes(shown[-1] if shown else {}, line))
                shown.append(line)
            goings_on.show(launched.run_folder)


class GoingsOn:
    """Shows the reason why a run waits: next to the bar at once, and once in a separate line when the wait is long."""

    def __init__(self, console: Console, progress: Progress, task: TaskID) -> None:
        self._console, self._progress, self._task = console, progress, task
        self._text, self._since, self._printed = "", time.monotonic(), ""

    def show(self, folder: Path | None) -> None:
        """Show the current status of the run folder."""
        text, until = read_status(folder) if folder else ("", None)
        now = time.monotonic()
        if text != self._text:
            self._text, self._since = text, now
            self._progress.update(self._task, description=printable(text.splitlines()[0]) if text else "")
        if text and text != self._printed and now - self._since > LONG_SECONDS:
            self._printed = text
            end = f", until {datetime.fromtimestamp(until):%H:%M:%S}" if until else ""
            first, *more = text.splitlines()
            for line in (f"{first}{end}", *more):
                self._console.print(Text(printable(line), style="dim"), soft_wrap=True)


def _rounds(launched: Followed) -> list[dict[str, Any]]:
    return read_rounds(launched.run_folder) if launched.run_folder else []


def _show_round(
    console: Console, progress: Progress, task: TaskID, experiment: Experiment, line: dict[str, Any]
) -> None:
    scores = _scores(line["test"] or line["validation"], MAIN[experiment.task.name])
    number, rounds = line["round"], experiment.federation.rounds
    moved = f"↑ {human(line['bytes_up'])} ↓ {human(line['bytes_down'])}" if number else "initial model"
    text = f"round {number:>3}/{rounds}  {scores}  {moved}  {line['seconds']['total']:.1f} s"
    if not number:
        show_sites(console, line)
        for sentence in line.get("started_from", ()):
            console.print(Text(printable(sentence)), soft_wrap=True)
    console.print(text, highlight=False, soft_wrap=True)
    _say(console, [f"  {site}: {reason}" for site, reason in line["failed"].items()])
    _say(console, [f"  {line['collapsed']}"] if line.get("collapsed") else [])
    complete = (line["test"] or line["validation"]).get(subset_name(experiment.modalities))
    key = MAIN[experiment.task.name]
    shown = f"{value(key, complete[key])} {'correct' if key == 'accuracy' else title(key)}" if complete else ""
    doing = f"{shown}, {moved}" if shown else moved
    progress.update(task, completed=number, description=doing)


def show_sites(console: Console, line: dict[str, Any]) -> None:
    """Print a table of the values of each site, from its introduction, and the possible problems. line: the line of
    round 0."""
    table = Table(title_justify="left")
    for name in ("site", "modality", "values", "unreadable", "silent or blank", "kind"):
        table.add_column(name, justify="left" if name in ("site", "modality", "kind") else "right")
    for site, facts in line.get("sites", {}).items():
        for modality, found in findings_of(facts).items():
            share = f"{found.unreadable} ({found.share_unreadable:.0%})" if found.unreadable else "0"
            cells = (site, modality, f"{found.values:,}", share, str(found.constant), next(iter(found.forms), ""))
            table.add_row(*(Text(printable(cell)) for cell in cells))
    if table.row_count:
        console.print(table)
    show_concerns(console, line.get("sites", {}), line.get("classes", ()))


def show_concerns(console: Console, sites: dict[str, Any], classes: Sequence[str]) -> None:
    """Print the possible problems in the sites' data, one line per problem."""
    _say(console, [f"{one.site}: {one.what}" if one.site else one.what for one in concerns(sites, classes)])


def _say(console: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        console.print(Text(printable(sentence), style="yellow"), soft_wrap=True)


def _scores(figures: dict[str, Any], key: str) -> str:
    scores = "  ".join(f"{name} {value(key, values[key])}" for name, values in figures.items())
    return scores if key == "accuracy" or not scores else f"{title(key)}  {scores}"


def show(folder: Path | None) -> None:
    """Print the table of a finished run and the path of its report."""
    console = terminal()
    if folder is None or not (folder / "summary.json").exists():
        console.print("finished; the results are in the folder runs/ on the SuperLink's host")
        return
    summary = json.loads((folder / "summary.json").read_text())
    table = Table(title=f"{summary['name']}: {summary['method']} on {summary['dataset']}", title_justify="left")
    table.add_column("modalities available")
    main, *others = LEADING[summary["task"]]
    table.add_column(f"{title(main)} ({summary['measured_on']})", justify="right")
    if summary["intervals"]:
        table.add_column("95 % interval", justify="right")
    table.add_column("examples", justify="right")
    for name, figures in summary["figures"].items():
        bounds = summary["intervals"].get(name, {}).get(main)
        between = (
            [" to ".join(value(main, bound) for bound in bounds) if bounds else ""] if summary["intervals"] else []
        )
        table.add_row(name, value(main, figures[main]), *between, f"{figures['examples']}")
    console.print(table)
    complete = summary["figures"].get(subset_name(summary.get("modalities", ())), {})
    if complete:
        more = ", ".join(f"{title(key)} {value(key, complete.get(key))}" for key in others)
        console.print(f"{more} with all modalities", highlight=False, soft_wrap=True)
    show_best(console, summary)
    moved = f"{human(summary['bytes_up'])} up, {human(summary['bytes_down'])} down"
    console.print(
        f"{summary['rounds']} round{'s' * (summary['rounds'] != 1)} in {summary['seconds']:.0f} s; {moved}",
        highlight=False,
    )
    _say(console, list(measured_on_little(complete, summary["classes"], summary["measured_on"])))
    show_concerns(console, summary["sites"], summary["classes"])
    show_standings(console, standings(read_rounds(folder), summary["sites"], summary["refused"], summary["missing"]))
    _say(console, failures(folder))
    console.print(f"report: {folder / 'report.html'}", highlight=False, soft_wrap=True)


def show_best(console: Console, summary: dict[str, Any]) -> None:
    """Print the best model of a run, and the reason for an early end."""
    if best := summary.get("best"):
        console.print(Text(f"kept {printable(best_in_words(best))}"), soft_wrap=True)
        _say(console, [warning_about(best)] if warning_about(best) else [])
    if summary.get("stopped"):
        console.print(Text(f"the run ended early: {printable(summary['stopped'])}"), soft_wrap=True)


def show_standings(console: Console, found: dict[str, Standing]) -> None:
    """Print the status of the sites, unless all of them took part from the beginning to the end."""
    if all(standing.state == TAKES_PART for standing in found.values()):
        return
    table = Table("site", "status", "reason")
    for site, standing in sorted(found.items()):
        cells = (site, standing.state, standing.why)
        table.add_row(*(Text(printable(cell), overflow="fold") for cell in cells))
    console.print(table)
