"""A comparison as one HTML page, without scripts and without files from elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from string import Template

from matplotlib.axes import Axes

from common.errors import ConfigError
from common.files import write_whole
from common.words import figures as words
from deploy.study.comparison.rows import Comparison
from deploy.study.comparison.table import facts, heads, legend, shares
from server.report.drawing import MANY, Key, Plot, line, render, round_axis
from server.report.page import document, figure, text
from server.report.page import table as html_table
from server.report.plots import value_axis


def write_page(out: Path, comparison: Comparison) -> None:
    """Write the page to a file.

    Raises ConfigError when the file cannot be written.
    """
    try:
        write_whole(out, page(comparison).encode("utf-8", errors="replace"))
    except OSError as error:
        raise ConfigError("--out", [f"{out} cannot be written: {error.strerror}"]) from None


def page(comparison: Comparison) -> str:
    """The whole page."""
    top = ["Runs", *map(text, heads(comparison))]
    rows = [["<br>".join(map(text, facts(row))), *map(_cell, shares(comparison, row))] for row in comparison.rows]
    main = MAIN.substitute(
        lead=f"{len(comparison.runs)} runs in {len(comparison.rows)} rows. The first row is the reference for the "
        "others.",
        table=html_table(top, rows, range(1, len(top))),
        legend=text(legend(comparison)),
        notes="".join(f"<li>{text(note)}</li>" for note in comparison.notes()),
        plots="".join(figure(plot) for plot in _plots(comparison)),
    )
    return document("Runs compared – fedmosaic", main)


def _cell(share: tuple[str, str]) -> str:
    mean, delta = map(text, share)
    return f"{mean}<br><small>Δ {delta}</small>" if delta else mean


def _plots(comparison: Comparison) -> Iterator[Plot]:
    """The main metric by round: one plot per subset of modalities, one curve per run, one colour per row."""
    colours = [MANY[index % len(MANY)] for index in range(len(comparison.rows))]
    keys = tuple(Key(row.label, colour) for row, colour in zip(comparison.rows, colours, strict=True))
    for number, subset in enumerate(comparison.subsets):

        def draw(axes: Axes, subset: str = subset) -> None:
            for row, colour in zip(comparison.rows, colours, strict=True):
                for run in row.runs:
                    line(axes, *run.run.series(subset, comparison.metric), colour)
            value_axis(axes, comparison.runs[0].run)
            round_axis(axes)

        title = f"{words.heading(comparison.metric)}: {text(subset)}"
        caption = "Each curve is a run. Each colour is a row of the table."
        yield Plot(f"curves-{number}", title, caption, render(f"curves-{number}", title, draw), keys)


MAIN = Template("""\
<header><div class="brand">fedmosaic · comparison</div><h1>Runs compared</h1><p class="lead">$lead</p></header>
<section id="figures">$table<p class="footnote">$legend</p><ul class="footnote">$notes</ul></section>
<section id="plots"><h2>How the runs went</h2><div class="grid">$plots</div></section>
""")
