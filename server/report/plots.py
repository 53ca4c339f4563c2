"""The plots of a run's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from common.words.units import human
from server.report.drawing import (
    FULL,
    INK,
    MANY,
    MUTED,
    QUIET,
    ROWS_AT_MOST,
    STACKED_AT_MOST,
    Key,
    Plot,
    heat_map,
    line,
    percent,
    render,
    round_axis,
    shortened,
    stack,
)
from server.report.run import Run, amount, mapping, number, round_of
from server.report.sites import graph, similarity, weights

TALL_FROM = 14
"""Number of classes from which the card is tall. On a wide page, a tall card is next to the three plots after it."""


def plots(run: Run) -> list[Plot]:
    """All plots of the report, in their order on the page."""
    always = [draw(run) for draw in (accuracy, imbalance, per_class, losses, traffic, time)]
    return always + [draw(run) for draw in (graph, similarity, weights) if run.weighed]


def accuracy(run: Run) -> Plot:
    """Accuracy by subset of modalities over the rounds."""
    slug, title = "accuracy", "Accuracy by modality subset"
    if not any(run.series(name, "accuracy")[0] for name in run.subsets):
        return Plot(slug, title, "No model of this run was evaluated, so there is no accuracy to show.")
    best = number(mapping(run.summary.get("best")).get("round"))
    chance = 1 / len(run.classes) if len(run.classes) > 1 else None

    def draw(axes: Axes) -> None:
        if chance:
            axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        if best is not None:
            axes.axvline(best, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        for name in run.subsets:
            line(axes, *run.series(name, "accuracy"), run.colours[name], bold=name == run.full)
        percent(axes)
        round_axis(axes)

    keys = [Key(name, run.colours[name]) for name in run.subsets]
    keys += [Key("guessing", MUTED, "dashed")] if chance else []
    keys += [Key("best model", INK, "dashed")] if best is not None else []
    told = "the server's test set" if run.measured_on == "test" else "the sites' own validation examples"
    caption = (
        f"Share of {told} that the global model classifies correctly from only these modalities. Higher is better."
    )
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def imbalance(run: Run) -> Plot:
    """The accuracy gap between single modalities, and the confidence of each modality in the true class."""
    slug, title = "imbalance", "Imbalance between modalities"
    if len(run.singles) < 2:
        return Plot(slug, title, "This plot needs figures of at least two single modalities; the run has fewer.")
    by_name = {name: dict(zip(*run.series(name, "accuracy"), strict=True)) for name in run.singles}
    rounds = sorted(set.intersection(*(set(known) for known in by_name.values())))
    values = [[known[made] for known in by_name.values()] for made in rounds]
    gap = [max(row) - min(row) for row in values]

    def draw(axes: Axes) -> None:
        axes.fill_between(rounds, gap, color=QUIET, alpha=0.55, linewidth=0)
        line(axes, rounds, gap, MUTED)
        for name in run.singles:
            line(axes, *run.series(name, "confidence"), run.colours[name])
        percent(axes)
        round_axis(axes)

    keys = [Key("accuracy gap, best − weakest modality", MUTED, "area")]
    keys += [Key(f"{name}: confidence in the true class", run.colours[name]) for name in run.singles]
    caption = (
        "The grey area is the accuracy gap between the best and the weakest modality. The lines are the model's"
        " confidence in the true class from each modality alone. A balanced model has a thin area and lines that rise"
        " together."
    )
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def per_class(run: Run) -> Plot:
    """Accuracy of the last model by class and subset. If there are very many classes, only the hardest are drawn."""
    slug, title = "per-class", "Accuracy by class"
    shown = [name for name in run.subsets if run.recalls(name)]
    if not shown:
        return Plot(slug, title, "No model of this run was evaluated by class.")
    columns = [padded(run.recalls(name), len(run.classes)) for name in shown]
    lowest = [min((value for value in row if value is not None), default=2.0) for row in zip(*columns, strict=True)]
    rows = sorted(sorted(range(len(lowest)), key=lowest.__getitem__)[:ROWS_AT_MOST])
    slanted = sum(len(name) for name in shown) > 40

    def draw(axes: Axes) -> None:
        heat_map(axes, [[column[k] for column in columns] for k in rows], 0, 1, "{:.0%}".format)
        axes.set_xticks([x + 0.5 for x in range(len(shown))], [shortened(name, 24) for name in shown])
        axes.tick_params(axis="x", labeltop=True, labelbottom=False, labelrotation=25 if slanted else 0)
        names = [shortened(run.classes[k], 22) for k in rows]
        axes.set_yticks([y + 0.5 for y in range(len(rows))], names, fontsize=9)

    few = len(rows) < len(lowest)
    which = f", for the {len(rows)} hardest of the {len(lowest)} classes" if few else ""
    caption = (
        f"Share of each class's examples that the last model classifies correctly{which}, by the modalities of its"
        " input. A paler cell is a weaker class. A dash is a class without examples."
    )
    drawn = render(slug, title, draw, height=0.6 + max(0.3 * len(rows), 1))
    return Plot(slug, title, caption, drawn, tall=len(rows) > TALL_FROM)


def padded(values: Sequence[float | None], length: int) -> list[float | None]:
    """The values, with None for those that are missing."""
    return [*values, *[None] * (length - len(values))]


def losses(run: Run) -> Plot:
    """The terms of the loss over the rounds."""
    slug, title = "losses", "Training loss by term"
    terms = sorted({name for entry in run.trained for name in mapping(entry.get("losses"))})
    if not terms:
        return Plot(slug, title, "No round of training finished, so there is no loss to show.")
    curves = {term: loss_curve(run, term) for term in terms}
    values = [value for _, known in curves.values() for value in known]
    positive = [value for value in values if value > 0]
    # Terms differ by orders of magnitude: on a linear scale, small terms would disappear on the axis.
    logarithmic = min(values, default=0) >= 0 and bool(positive) and max(positive) > 30 * min(positive)

    def draw(axes: Axes) -> None:
        for i, (rounds, known) in enumerate(curves.values()):
            line(axes, rounds, known, MANY[i * 3 % len(MANY)], dashed=i >= len(MANY))
        if logarithmic:
            axes.set_yscale("log", nonpositive="mask")
            axes.set_ylim(bottom=max(min(positive), max(positive) * 1e-6) / 1.5)
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        else:
            axes.set_ylim(bottom=min([*values, 0]))
        round_axis(axes)

    shapes = ["dashed" if i >= len(MANY) else "line" for i in range(len(terms))]
    keys = tuple(Key(term, MANY[i * 3 % len(MANY)], shapes[i]) for i, term in enumerate(terms))
    caption = "The terms of the loss that training minimises, averaged over the sites. They should fall and level out."
    caption += " The scale is logarithmic." if logarithmic else ""
    return Plot(slug, title, caption, render(slug, title, draw), keys)


def loss_curve(run: Run, term: str) -> tuple[list[int], list[float]]:
    """The rounds that have a term of the loss, and its values."""
    found = [(round_of(entry), number(mapping(entry.get("losses")).get(term))) for entry in run.trained]
    return [made for made, value in found if value is not None], [v for _, v in found if v is not None]


def traffic(run: Run) -> Plot:
    """Bytes per round: up above the axis, down below it."""
    slug, title = "traffic", "Data moved per round"
    ways = ("bytes_up", "bytes_down")
    if not any(amount(entry.get(way)) for entry in run.trained for way in ways):
        return Plot(slug, title, "No round of training finished, so no data was moved.")
    rounds = [round_of(entry) for entry in run.trained]
    named = run.clients if len(run.clients) <= STACKED_AT_MOST else []
    parts = {way: traffic_parts(run, way, named) for way in ways}
    rest = any(parts[way][-1][i] for way in ways for i in range(len(rounds)))
    colours = [*MANY[: len(named)], QUIET if named else FULL]

    def draw(axes: Axes) -> None:
        stack(axes, rounds, parts["bytes_up"], colours)
        stack(axes, rounds, [[-value for value in part] for part in parts["bytes_down"]], colours)
        axes.axhline(0, color=INK, linewidth=1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: human(abs(value))))
        axes.margins(y=0.2)
        for y, side, way in ((0.985, "top", "↑ from the sites"), (0.015, "bottom", "↓ to the sites")):
            axes.text(0.01, y, way, transform=axes.transAxes, va=side, fontsize=9, color=MUTED)
        round_axis(axes)

    keys = [Key(name, colour, "area") for name, colour in zip(named, colours, strict=False)]
    keys += [Key("sites that failed" if named else "all sites", colours[-1], "area")] if rest else []
    caption = "Bars above the line are data that the sites sent; bars below it are data that the sites received."
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def traffic_parts(run: Run, way: str, named: Sequence[str]) -> list[list[float]]:
    """The bytes of each named site by round, and at the end the rest of the round's total."""
    lines = [mapping(entry.get("clients")) for entry in run.trained]
    parts = [[amount(mapping(clients.get(name)).get(way)) for clients in lines] for name in named]
    totals = [amount(entry.get(way)) for entry in run.trained]
    used = [sum(column) for column in zip(*parts, strict=True)] or [0.0] * len(totals)
    return [*parts, [max(total - part, 0.0) for total, part in zip(totals, used, strict=True)]]


PHASES = {
    "waiting and transfer": QUIET,
    "loading data (slowest site)": "#88ccee",
    "validation (slowest site)": "#ddcc77",
    "training (slowest site)": "#332288",
    "averaging (server)": "#cc6677",
    "evaluation (server)": "#44aa99",
}


def time(run: Run) -> Plot:
    """Time by phase of each round."""
    slug, title = "time", "Time per round"
    phases = [round_phases(entry) for entry in run.trained]
    longest = max((sum(row) for row in phases), default=0.0)
    if not longest:
        return Plot(slug, title, "No round of training finished, so there is no time to show.")
    rounds = [round_of(entry) for entry in run.trained]
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, seconds = next((u for u in units if longest > 2 * u[1]), units[-1])

    def draw(axes: Axes) -> None:
        parts = [[spent / seconds for spent in phase] for phase in zip(*phases, strict=True)]
        stack(axes, rounds, parts, list(PHASES.values()))
        axes.set_ylabel(unit)
        round_axis(axes)

    caption = (
        "A round lasts as long as its slowest site. The coloured parts are work. The grey part is transfer and waiting."
    )
    keys = tuple(Key(name, colour, "area") for name, colour in PHASES.items())
    return Plot(slug, title, caption, render(slug, title, draw), keys)


def round_phases(entry: Mapping[str, Any]) -> list[float]:
    """The seconds of each of PHASES in one round."""
    server = mapping(entry.get("seconds"))
    sites = [mapping(mapping(client).get("seconds")) for client in mapping(entry.get("clients")).values()]
    work = [[amount(site.get(phase)) for phase in ("load", "evaluate", "train")] for site in sites]
    slowest = max(work, key=sum, default=[0.0, 0.0, 0.0])
    waiting = max(amount(server.get("exchange")) - sum(slowest), 0.0)
    return [waiting, *slowest, amount(server.get("aggregate")), amount(server.get("evaluate"))]
