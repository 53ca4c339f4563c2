"""`fedmosaic inspect`: show the content of a shard in the terminal and on a page."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from common.errors import ConfigError, RefusedError
from deploy.commands.shared.experiment import add_overrides, experiment_of
from deploy.commands.shared.frozen import quiet_libraries
from deploy.commands.shared.given import readable, shards_there
from deploy.terminal import terminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from common.config.experiment import Experiment
    from common.data.shard import Shard
    from common.encoders.base import Encoder
    from common.modality import Modality
    from common.tasks.base import Task
    from deploy.shards.inspection.survey import Survey

LEFT = ("length", "range", "kind", "type", "spread", "distribution")
"""Columns of tables that contain texts."""
MOST_ROWS = 30
"""The maximum number of rows of classes, and of broken files, in the terminal."""


def add_parser(commands: Any) -> None:
    """The command line of `fedmosaic inspect`."""
    parser = commands.add_parser(
        "inspect",
        help="check a shard: counts, missing values, broken files, examples",
        description="Read every file of a shard, as training does, and summarise the content. Broken files "
        "count as missing. With --with, also check whether the experiment's encoders accept every value, and whether "
        "a run would refuse the site. If it would, the exit status is 1.",
        epilog="example: fedmosaic inspect shards/client-0 --with experiment.yaml --out client-0.html",
    )
    parser.add_argument("shard", type=Path, metavar="SHARD", help="a folder with metadata.jsonl and shard.json")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.html", help="also write a page with a few examples of each class or label"
    )
    parser.add_argument(
        "--with", type=Path, metavar="CONFIG", dest="config", help="an experiment that will use the shard"
    )
    add_overrides(parser)
    parser.add_argument(
        "--test",
        type=Path,
        metavar="SHARD",
        help="the test shard: check that the two shards share no file, and have the same labels and columns of tables",
    )
    parser.add_argument(
        "--sample", type=int, metavar="N", help="read only N examples, chosen at random, for a very large shard"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead of tables")
    parser.set_defaults(command=_command)


def _command(options: argparse.Namespace) -> None:
    shards_there([options.shard, options.test])
    if options.config:
        readable(options.config)
    from common.data.shard import Shard
    from common.data.sites import site_folders
    from deploy.shards.inspection.attention import attention, refusal
    from deploy.shards.inspection.survey import sampled

    mistakes = _mistakes(options)
    if not (options.shard / "shard.json").exists() and (shards := [str(path) for path in site_folders(options.shard)]):
        mistakes.append(f"{options.shard} is a folder of shards: name one of them, e.g. {shards[0]}")
    if mistakes:
        raise ConfigError("inspect", mistakes)
    quiet_libraries()  # the output below counts unreadable files
    experiment = experiment_of(options) if options.config else None
    shard = Shard.open(options.shard, listed=None, labelled=False)
    found = _survey(options, sampled(shard, options.sample) if options.sample else shard, experiment)
    why = refusal(found, experiment.data.max_unreadable) if experiment else None
    if options.json:
        print(json.dumps(found.to_json() | {"attention": attention(found), "refused": why}, indent=1))
    else:
        _show(terminal(), found)
        if options.out:
            print(f"page with examples, keep it at the site: {options.out}")
        if experiment and not why:
            print(f"a run of {experiment.name} would accept this site")
    if experiment and why:
        raise RefusedError(f"a run of {experiment.name} would refuse this site: {why}")


def _survey(options: argparse.Namespace, shard: "Shard", experiment: "Experiment | None") -> "Survey":
    from common.data.shard import Shard
    from common.tasks.find import task_of
    from deploy.shards.inspection.encoders import encoders_of
    from deploy.shards.inspection.survey import survey

    encoders = encoders_of(experiment, shard) if experiment else {}
    task = task_of(experiment.task, shard.info.classes) if experiment else None
    other = Shard.open(options.test, labelled=False) if options.test else None
    if options.out:
        return _with_page(shard, options.out, encoders, other, task)
    return survey(shard, None, encoders, other, task)


def _mistakes(options: argparse.Namespace) -> list[str]:
    """The mistakes in the options, found before a shard is read, which may take minutes."""
    mistakes = [] if options.sample is None or options.sample > 0 else ["--sample: must be at least 1"]
    if options.overrides and not options.config:
        mistakes.append("--set changes the experiment of --with CONFIG: add --with CONFIG")
    return mistakes + _page_mistakes(options.out)


def _page_mistakes(out: Path | None) -> list[str]:
    if out is None:
        return []
    mistakes = [] if out.suffix == ".html" else [f"--out: {out} does not end in .html"]
    if out.is_dir():
        mistakes.append(f"--out: {out} is a folder")
    elif not out.parent.is_dir():
        mistakes.append(f"--out: there is no folder {out.parent}")
    return mistakes


def _with_page(
    shard: "Shard", out: Path, encoders: "Mapping[Modality, Encoder]", other: "Shard | None", task: "Task | None"
) -> "Survey":
    from common.files import write_whole
    from deploy.shards.inspection.gallery import Gallery
    from deploy.shards.inspection.page import page
    from deploy.shards.inspection.survey import survey

    gallery = Gallery(shard)
    found = survey(shard, gallery, encoders, other, task)
    try:
        write_whole(out, page(found, gallery.shown).encode("utf-8", errors="replace"))
    except OSError as error:
        raise ConfigError("inspect", [f"--out: {out} cannot be written: {error.strerror}"]) from None
    return found


def _show(console: Console, survey: "Survey") -> None:
    """Print the tables."""
    from deploy.shards.inspection.attention import attention
    from deploy.shards.inspection.labels import counted

    info, examples = survey.shard.info, len(survey.shard.records)
    console.print(_cell(f"site {info.site}: {counted(info, examples)}"))
    console.print(_cell(f"licence: {info.licence or 'not given'}"))
    modalities = _table("modality", "values", "length", "range", "kind")
    for name, values in survey.modalities.items():
        _row(modalities, name, f"{len(values.lengths):,}", values.extent, values.range, values.form)
    console.print(modalities)
    for name, seen in survey.tables.items():
        columns = _table(f"column of {name}", "type", "missing", "spread", "distribution")
        for column, found in seen.columns.items():
            _row(columns, column, found.kind, f"{found.missing:.1%}", found.bars, found.distribution)
        console.print(columns)
    patterns = _table("has", "examples", "share")
    for name in survey.pattern_names:
        _row(patterns, name, f"{survey.patterns[name]:,}", f"{survey.patterns[name] / examples:.1%}")
    console.print(patterns)
    if survey.targets:
        _show_targets(console, survey)
    else:
        _show_classes(console, survey)
    for made in survey.generated:
        said = f"{len(made.values):,} values, {made.rejected:,} rejected, {made.failed:,} failed"
        console.print(_cell(f"generated {made.modality} by {made.model}: {said}"))
    _show_broken(console, survey)
    for concern in attention(survey):
        console.print(Text.assemble(("! ", "bold yellow"), _cell(concern)), soft_wrap=True)


def _show_classes(console: Console, survey: "Survey") -> None:
    """Print the counts by class or label. If there are many, print only the smallest, because these cause problems."""
    from deploy.shards.inspection.labels import NAMED

    one, several = NAMED[survey.shard.info.task]
    labels = survey.shard.info.classes
    if len(labels) > MOST_ROWS:
        labels = sorted(labels, key=lambda label: survey.examples[label])[:MOST_ROWS]
    classes = _table(one, "examples", *survey.modalities)
    for label in labels:
        counts = (survey.examples[label], *(survey.values[label, modality] for modality in survey.modalities))
        _row(classes, label, *(f"{count:,}" for count in counts))
    console.print(classes)
    if more := len(survey.shard.info.classes) - len(labels):
        console.print(f"and {more:,} larger {several}")
    if survey.sets:
        numbers = _table("labels per example", "examples", "share")
        for number, count in survey.sets.per_example.items():
            _row(numbers, str(number), f"{count:,}", f"{count / len(survey.sets.applies):.1%}")
        console.print(numbers)


def _show_targets(console: Console, survey: "Survey") -> None:
    """Print the distribution of each target, and the line for the experiment."""
    from deploy.shards.inspection.distribution import bars, histogram, quantiles_in_words

    targets = _table("target", "mean", "std", "spread", "distribution")
    for name, seen in survey.targets.items():
        spread, distribution = bars(histogram(seen.numbers)), quantiles_in_words(seen.numbers)
        _row(targets, name, f"{seen.mean:g}", f"{seen.std:g}", spread, distribution)
    console.print(targets)
    console.print(Text.assemble("in the experiment: ", _cell(survey.task_line)), soft_wrap=True)


def _show_broken(console: Console, survey: "Survey") -> None:
    if not survey.broken:
        console.print("every file can be read", style="green")
        return
    console.print(f"{len(survey.broken):,} broken files, which count as missing:", style="yellow", highlight=False)
    for broken in survey.broken[:MOST_ROWS]:
        console.print(_cell(f"  {broken.file}: {broken.reason}"), soft_wrap=True)
    if (more := len(survey.broken) - MOST_ROWS) > 0:
        console.print(f"  and {more:,} more; --json lists all")


def _table(first: str, *others: str) -> Table:
    table = Table(title_justify="left")
    table.add_column(first)
    for name in others:
        table.add_column(_cell(name), justify="left" if name in LEFT else "right")
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*map(_cell, cells))


def _cell(text: str) -> Text:
    """A text without markup and control sequences, because names come from files."""
    from common.words.printable import printable

    return Text(printable(text))
