"""The plots of a run's page."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from common.words import figures as words
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

CONFUSION_AT_MOST = 60
"""The maximum number of classes in the picture of a confusion matrix."""
NUMBERED_AT_MOST = 12
"""The maximum number of classes with numbers in its cells."""
LEAST_SHOWN = -1.0
"""The lower end of the axis of R², which has no smallest value."""
TALL_FROM = 14
"""Number of classes from which the card is tall. On a wide page, a tall card is next to the three plots after it."""


def plots(run: Run) -> list[Plot]:
    """All plots of the report, in their order on the page."""
    every = (scores, imbalance, per_class, confusion, reliability, losses, traffic, time)
    always = [draw(run) for draw in every if run.task in TASKS.get(draw, (run.task,))]
    return always + [draw(run) for draw in (graph, similarity, weights) if run.weighed]


def scores(run: Run) -> Plot:
    """The main metric by subset of modalities over the rounds."""
    named = words.title(run.metric)
    slug, title = "accuracy", f"{words.heading(run.metric)} by modality subset"
    if not any(run.series(name, run.metric)[0] for name in run.subsets):
        return Plot(slug, title, f"No model of this run was evaluated, so there is no {named} to show.")
    best = number(mapping(run.summary.get("best")).get("round"))
    chance = {"accuracy": 1 / len(run.classes) if len(run.classes) > 1 else None, "auroc": 0.5}.get(run.metric)

    def draw(axes: Axes) -> None:
        if chance:
            axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        if best is not None:
            axes.axvline(best, color=INK, linewidth=1, linestyle=(0, (1, 2)))
        for name in run.subsets:
            line(axes, *run.series(name, run.metric), run.colours[name], bold=name == run.full)
        value_axis(axes, run)
        round_axis(axes)

    keys = [Key(name, run.colours[name]) for name in run.subsets]
    keys += [Key("guessing", MUTED, "dashed")] if chance else []
    keys += [Key("best model", INK, "dashed")] if best is not None else []
    told = "the server's test set" if run.measured_on == "test" else "the sites' own validation examples"
    measured = f"{words.heading(run.metric)} of the global model on {told}, from"
    if run.metric == "accuracy":
        measured = f"Share of {told} that the global model classifies correctly from"
    caption = f"{measured} only these modalities. Higher is better."
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def value_axis(axes: Axes, run: Run) -> None:
    """The vertical axis of the main metric."""
    if run.metric == "accuracy":
        percent(axes)
    elif run.metric == "auroc":
        axes.set_ylim(0, 1.03)
    else:
        axes.set_ylim(bottom=max(axes.get_ylim()[0], LEAST_SHOWN), top=1.03)


def imbalance(run: Run) -> Plot:
    """The accuracy gap between single modalities, and the confidence of each modality in the true class."""
    slug, title = "imbalance", "Imbalance between modalities"
    if len(run.singles) < 2:
        return Plot(slug, title, "This plot needs figures of at least two single modalities; the run has fewer.")
    by_name = {name: dict(zip(*run.series(name, run.metric), strict=True)) for name in run.singles}
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

    named, truth = words.title(run.metric), "true class" if run.task == "single-label" else "truth"
    keys = [Key(f"{named} gap, best − weakest modality", MUTED, "area")]
    keys += [Key(f"{name}: confidence in the {truth}", run.colours[name]) for name in run.singles]
    caption = (
        f"The grey area is the {named} gap between the best and the weakest modality. The lines are the model's"
        f" confidence in the {truth} from each modality alone. A balanced model has a thin area and lines that rise"
        " together."
    )
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def per_class(run: Run) -> Plot:
    """Sensitivity of the last model by class and subset. If there are very many classes, only the hardest are drawn."""
    slug, title = "per-class", "Sensitivity by class"
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
        f"Share of each class's examples that the last model finds{which}, by the modalities of its"
        " input. A paler cell is a weaker class. A dash is a class without examples."
    )
    drawn = render(slug, title, draw, height=0.6 + max(0.3 * len(rows), 1))
    return Plot(slug, title, caption, drawn, tall=len(rows) > TALL_FROM)


def confusion(run: Run) -> Plot:
    """The confusion matrix of the last model with all modalities, by row as shares of the true class."""
    slug, title = "confusion", "Confusion matrix"
    rows = mapping(run.final.get(run.full)).get("confusion")
    counts = [[amount(cell) for cell in row] for row in rows if isinstance(row, list)] if isinstance(rows, list) else []
    if not counts or len(counts) > CONFUSION_AT_MOST:
        why = f"more than {CONFUSION_AT_MOST} classes; metrics.jsonl has its counts" if counts else "no counts"
        return Plot(slug, title, f"There is no picture of this matrix: {why}.")
    shares = [[cell / total if (total := sum(row)) else None for cell in row] for row in counts]
    size = len(counts)

    def draw(axes: Axes) -> None:
        heat_map(axes, shares, 0, 1, (lambda share: f"{share:.0%}") if size <= NUMBERED_AT_MOST else None)
        names = [shortened(name, 14) for name in padded_names(run.classes, size)]
        axes.set_xticks([x + 0.5 for x in range(size)], names, fontsize=8, rotation=40 if size > 3 else 0)
        axes.set_yticks([y + 0.5 for y in range(size)], names, fontsize=8)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")

    caption = (
        f"Share of each true class (row) that the last model predicts as each class (column), from {run.full}. The"
        " diagonal is the sensitivity. A dash is a class without examples."
    )
    drawn = render(slug, title, draw, height=1.4 + min(max(0.3 * size, 1.6), 6))
    return Plot(slug, title, caption, drawn, tall=size > TALL_FROM)


def padded_names(names: Sequence[str], length: int) -> list[str]:
    """The names, with numbers for those that are missing."""
    return [*names[:length], *map(str, range(len(names), length))]


def reliability(run: Run) -> Plot:
    """How often the last model is right, by how sure it is."""
    slug, title = "reliability", "Calibration"
    found = mapping(mapping(run.final.get(run.full)).get("reliability"))
    rows = zip(*(found.get(key) or [] for key in ("confidence", "right", "examples")), strict=False)
    points = [(number(sure), amount(right) / amount(count), amount(count)) for sure, right, count in rows
              if amount(count)]  # fmt: skip
    known = [(sure, share, count) for sure, share, count in points if sure is not None]
    if not known:
        return Plot(slug, title, "No model of this run was evaluated with probabilities.")
    error = words.value("calibration_error", mapping(run.final.get(run.full)).get("calibration_error"))
    most = max(count for _, _, count in known)

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        sizes = [8 + 120 * count / most for _, _, count in known]
        axes.scatter([sure for sure, _, _ in known], [share for _, share, _ in known], s=sizes,
                     color=run.colours[run.full])  # fmt: skip
        percent(axes)
        axes.set_xlim(0, 1.03)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{share:.0%}"))
        axes.set_xlabel("probability")

    what = "its predictions are right" if run.task == "single-label" else "labels with this probability apply"
    caption = (
        f"How often {what}, by the probability that the model gives, from {run.full}. Larger points are more examples."
        f" Points below the line are too sure. Expected calibration error: {error}."
    )
    keys = (Key(run.full, run.colours[run.full], "area"), Key("perfect calibration", MUTED, "dashed"))
    return Plot(slug, title, caption, render(slug, title, draw), keys)


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


TASKS = {
    imbalance: ("single-label", "multi-label"),
    per_class: ("single-label", "multi-label"),
    confusion: ("single-label",),
    reliability: ("single-label", "multi-label"),
}
"""The tasks of plots that are not for every task."""
