"""The plots of a report: a run drawn as SVG elements that can stand side by side in one page."""

import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from common.types import subset_name
from common.units import human

WIDTH = 5.0  # inches; 360 units across, so that text of 10 units is still read on a phone
HEIGHT = 3.1
INK, MUTED, GRID, QUIET = "#1f2933", "#52606d", "#e4e7eb", "#c3cad3"
FULL = "#0072b2"
SINGLES = ("#e69f00", "#009e73", "#cc79a7", "#d55e00")
MIXED = ("#56b4e9", "#8c6d1f", "#7f7f7f", "#5e4fa2", "#a6761d", "#1b7837")
MANY = ("#332288", "#88ccee", "#44aa99", "#cc6677", "#ddcc77", "#117733", "#882255", "#999933")
"""Okabe and Ito's colours for subsets of modalities, Paul Tol's for the rest: safe for the colour-blind."""
STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
SHADES = LinearSegmentedColormap.from_list("shades", ["#eef4fa", "#7fb4d6", FULL, "#08385c"])
BARS_AT_MOST = 12  # classes
NUMBERED_AT_MOST = 8  # clients of a heat map whose cells tell their values
STACKED_AT_MOST = 8  # clients
ROWS_AT_MOST = 40  # of a heat map
GAPS_AT_MOST = 40  # rounds; beyond, bars touch and a whole series is one path, which keeps the page small


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def number(value: Any) -> float | None:
    """The value where it is a finite number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def amount(value: Any) -> float:
    """The value where it is a finite number, else 0."""
    return number(value) or 0.0


def round_of(line: Mapping[str, Any]) -> int:
    """The number of a line's round."""
    return int(amount(line.get("round")))


def printable(value: Any) -> str:
    """Names come from the sites: what XML cannot hold or a reader cannot see becomes a dot."""
    return "".join(c if c.isprintable() else "·" for c in str(value))


def shortened(value: Any, length: int = 14) -> str:
    """A name cut to fit an axis."""
    name = printable(value)
    return name if len(name) <= length else name[: length - 1] + "…"


@dataclass(frozen=True)
class Run:
    """The content of a run folder. rounds: the lines of metrics.jsonl, by number."""

    summary: Mapping[str, Any]
    rounds: Sequence[Mapping[str, Any]]
    config: str

    @cached_property
    def measured_on(self) -> str:
        """ "test" where the server has a test shard, else "validation"."""
        return "test" if any(mapping(line.get("test")) for line in self.rounds) else "validation"

    @cached_property
    def points(self) -> list[tuple[int, dict[str, Any]]]:
        """The figures of the global model by subset, with the number of the round that made it."""
        # Clients validate the model they receive, which is the one the round before has made.
        late = 0 if self.measured_on == "test" else 1
        found = [(round_of(line) - late, mapping(line.get(self.measured_on))) for line in self.rounds]
        return [(made, figures) for made, figures in found if figures]

    @cached_property
    def final(self) -> dict[str, Any]:
        """The figures of the last model that was measured."""
        return self.points[-1][1] if self.points else {}

    @cached_property
    def subsets(self) -> list[str]:
        """Every subset of modalities with figures: single ones first, the largest last."""
        names = {name for _, figures in self.points for name in figures}
        names |= set(mapping(self.summary.get("accuracy")))
        return sorted(names, key=lambda name: (name.count("+"), name))

    @cached_property
    def modalities(self) -> list[str]:
        """The modalities of the experiment, or where no summary names them those with figures."""
        named = self.summary.get("modalities") or {part for name in self.subsets for part in name.split("+")}
        return sorted(str(name) for name in named)

    @cached_property
    def full(self) -> str:
        """The subset that has every modality."""
        return subset_name(self.modalities)

    @cached_property
    def singles(self) -> list[str]:
        """The single modalities with figures."""
        return [name for name in self.subsets if name in self.modalities]

    @cached_property
    def colours(self) -> dict[str, str]:
        """The colour of each subset, the same in every plot."""
        singles = [name for name in self.modalities if name != self.full]
        mixed = [name for name in self.subsets if name not in singles and name != self.full]
        own = {name: SINGLES[i % len(SINGLES)] for i, name in enumerate(singles)}
        own |= {name: MIXED[i % len(MIXED)] for i, name in enumerate(mixed)}
        return {**own, self.full: FULL}

    @cached_property
    def classes(self) -> list[str]:
        """The names of the classes; numbers where none are known."""
        named = [str(name) for name in self.summary.get("classes") or []]
        seen = max((len(self.recalls(name)) for name in self.subsets), default=0)
        return named + [str(i) for i in range(len(named), seen)]

    @cached_property
    def trained(self) -> list[Mapping[str, Any]]:
        """The rounds after the evaluation of the initial model."""
        return [line for line in self.rounds if round_of(line) > 0]

    @cached_property
    def clients(self) -> list[str]:
        """Every site that replied in some round."""
        return sorted({name for line in self.trained for name in mapping(line.get("clients"))})

    @cached_property
    def weighed(self) -> list[tuple[int, dict[str, Any]]]:
        """What the strategy said of how it weighed the clients, with the number of the round."""
        found = [(round_of(line), mapping(line.get("aggregation"))) for line in self.trained]
        return [(made, said) for made, said in found if {"weights", "similarity"} & said.keys()]

    def recalls(self, subset: str) -> list[float | None]:
        """The final accuracy by class; None for a class without examples."""
        return [number(value) for value in mapping(self.final.get(subset)).get("per_class") or []]

    def series(self, subset: str, figure: str) -> tuple[list[int], list[float]]:
        """A figure of a subset over the rounds, where it is known."""
        known = [(made, number(mapping(figures.get(subset)).get(figure))) for made, figures in self.points]
        return [made for made, value in known if value is not None], [v for _, v in known if v is not None]


@dataclass(frozen=True)
class Key:
    """An entry of a plot's legend. shape: line, dashed or area."""

    label: str
    colour: str
    shape: str = "line"


@dataclass(frozen=True)
class Plot:
    """A plot with what is written around it. svg is empty where nothing can be drawn; the caption says why."""

    slug: str
    title: str
    caption: str
    svg: str = ""
    keys: tuple[Key, ...] = ()
    tall: bool = False


def plots(run: Run) -> list[Plot]:
    """All plots of the report, in the order of the page."""
    always = [draw(run) for draw in (accuracy, imbalance, per_class, losses, traffic, time)]
    return always + [draw(run) for draw in (similarity, weights) if run.weighed]


def accuracy(run: Run) -> Plot:
    """Accuracy by subset of modalities over the rounds."""
    slug, title = "accuracy", "Accuracy by modality subset"
    if not any(run.series(name, "accuracy")[0] for name in run.subsets):
        return Plot(slug, title, "No model of this run was evaluated, so there is no accuracy to show.")
    chance = 1 / len(run.classes) if len(run.classes) > 1 else None

    def draw(axes: Axes) -> None:
        if chance:
            axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        for name in run.subsets:
            line(axes, *run.series(name, "accuracy"), run.colours[name], bold=name == run.full)
        percent(axes)
        round_axis(axes)

    keys = [Key(name, run.colours[name]) for name in run.subsets]
    keys += [Key("guessing", MUTED, "dashed")] if chance else []
    told = "the server's test set" if run.measured_on == "test" else "the sites' own validation examples"
    caption = f"Share of {told} that the global model gets right when shown only these modalities; higher is better."
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def imbalance(run: Run) -> Plot:
    """The gap between single modalities, and the confidence that each of them earns."""
    slug, title = "imbalance", "Imbalance between modalities"
    if len(run.singles) < 2:
        return Plot(slug, title, "This needs figures of two single modalities or more; the run has fewer.")
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
        "The grey area is how far the weakest modality trails the best one, the lines how sure of the right"
        " answer each is on its own; a balanced model has a thin area and lines that rise together."
    )
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def per_class(run: Run) -> Plot:
    """Final accuracy by class: bars for few classes, a heat map for many."""
    slug, title = "per-class", "Final accuracy by class"
    shown = [name for name in run.subsets if run.recalls(name)]
    if not shown:
        return Plot(slug, title, "No model of this run was evaluated by class.")
    recalls = {name: padded(run.recalls(name), len(run.classes)) for name in shown}
    if len(run.classes) > BARS_AT_MOST:
        return class_map(run, recalls)

    def draw(axes: Axes) -> None:
        width = 0.82 / len(shown)
        for i, name in enumerate(shown):
            shift = (i - (len(shown) - 1) / 2) * width
            known = [(k + shift, value) for k, value in enumerate(recalls[name]) if value is not None]
            # A bar of no height would look like a class without examples.
            heights = [max(value, 0.008) for _, value in known]
            axes.bar([x for x, _ in known], heights, width * 0.9, color=run.colours[name])
        class_axis(axes, [shortened(name) for name in run.classes])
        percent(axes)

    caption = (
        "Share of each class's examples that the final model recognises; a hairline means none of them, and a"
        " class without examples has no bar."
    )
    keys = tuple(Key(name, run.colours[name], "area") for name in shown)
    return Plot(slug, title, caption, render(slug, title, draw), keys)


def padded(values: Sequence[float | None], length: int) -> list[float | None]:
    """The values, with None for those that are missing."""
    return [*values, *[None] * (length - len(values))]


def class_axis(axes: Axes, labels: Sequence[str]) -> None:
    """A horizontal axis of class names, slanted where they would touch."""
    slanted = sum(len(label) + 2 for label in labels) > 56
    axes.set_xticks(range(len(labels)), labels)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    if not slanted:
        axes.set_xlabel("class")
    for label in axes.get_xticklabels() if slanted else []:
        label.set(rotation=40, ha="right", rotation_mode="anchor")


def class_map(run: Run, recalls: Mapping[str, Sequence[float | None]]) -> Plot:
    """Final accuracy by class as a heat map, of the hardest classes where there are too many to read."""
    slug, title = "per-class", "Final accuracy by class"
    columns = zip(*recalls.values(), strict=True)
    lowest = [min((value for value in column if value is not None), default=2.0) for column in columns]
    rows = sorted(sorted(range(len(lowest)), key=lowest.__getitem__)[:ROWS_AT_MOST])
    cells = [[recalls[name][k] for name in recalls] for k in rows]
    names = [shortened(run.classes[k], 18) for k in rows]

    def draw(axes: Axes) -> None:
        filled = [[math.nan if value is None else value for value in row] for row in cells]
        axes.pcolormesh(
            filled, cmap=SHADES.with_extremes(bad="white"), vmin=0, vmax=1, edgecolors="white", linewidth=1.2
        )
        for y, row in enumerate(cells):
            for x, value in enumerate(row):
                shown, ink = "–" if value is None else f"{value:.0%}", "white" if (value or 0) > 0.55 else INK
                axes.text(x + 0.5, y + 0.5, shown, ha="center", va="center_baseline", fontsize=8, color=ink)
        axes.set_xticks([x + 0.5 for x in range(len(recalls))], [shortened(name, 24) for name in recalls])
        slanted = sum(len(name) for name in recalls) > 40
        axes.tick_params(axis="x", labeltop=True, labelbottom=False, labelrotation=25 if slanted else 0)
        axes.set_yticks([y + 0.5 for y in range(len(rows))], names, fontsize=9)
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines[:].set_visible(False)

    few = len(rows) < len(lowest)
    which = f", for the {len(rows)} hardest of the {len(lowest)} classes" if few else ""
    caption = (
        f"Share of each class's examples that the final model recognises{which}, by the modalities it is"
        " shown; the paler a cell, the weaker the class, and a dash means a class without examples."
    )
    # On a wide page the card stands beside the three plots that follow.
    drawn = render(slug, title, draw, height=0.6 + min(0.45 * len(rows), 12))
    return Plot(slug, title, caption, drawn, tall=True)


def losses(run: Run) -> Plot:
    """The terms of the loss over the rounds."""
    slug, title = "losses", "Training loss by term"
    terms = sorted({name for entry in run.trained for name in mapping(entry.get("losses"))})
    if not terms:
        return Plot(slug, title, "No round of training was finished, so there is no loss to show.")
    curves = {term: loss_curve(run, term) for term in terms}
    values = [value for _, known in curves.values() for value in known]
    positive = [value for value in values if value > 0]
    # Terms differ by orders of magnitude: on a linear scale the small ones would lie on the axis.
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
    caption = "What training minimises, term by term, averaged over the sites; it should fall and level out."
    caption += " The scale is logarithmic." if logarithmic else ""
    return Plot(slug, title, caption, render(slug, title, draw), keys)


def loss_curve(run: Run, term: str) -> tuple[list[int], list[float]]:
    """A term of the loss over the rounds, where it is known."""
    found = [(round_of(entry), number(mapping(entry.get("losses")).get(term))) for entry in run.trained]
    return [made for made, value in found if value is not None], [v for _, v in found if v is not None]


def traffic(run: Run) -> Plot:
    """Bytes by round: up above the axis, down below it."""
    slug, title = "traffic", "Data moved per round"
    ways = ("bytes_up", "bytes_down")
    if not any(amount(entry.get(way)) for entry in run.trained for way in ways):
        return Plot(slug, title, "No round of training was finished, so no data was moved.")
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
        axes.margins(y=0.12)
        for y, side, way in ((0.985, "top", "↑ from the sites"), (0.015, "bottom", "↓ to the sites")):
            axes.text(0.01, y, way, transform=axes.transAxes, va=side, fontsize=9, color=MUTED)
        round_axis(axes)

    keys = [Key(name, colour, "area") for name, colour in zip(named, colours, strict=False)]
    keys += [Key("sites that failed" if named else "all sites", colours[-1], "area")] if rest else []
    caption = "Above the line is what the sites sent, below it what they received; short bars are cheap rounds."
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def traffic_parts(run: Run, way: str, named: Sequence[str]) -> list[list[float]]:
    """The bytes of each named client by round, and last what is left of the round's total."""
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
        return Plot(slug, title, "No round of training was finished, so there is no time to break down.")
    rounds = [round_of(entry) for entry in run.trained]
    units = (("hours", 3600), ("minutes", 60), ("seconds", 1))
    unit, seconds = next((u for u in units if longest > 2 * u[1]), units[-1])

    def draw(axes: Axes) -> None:
        parts = [[spent / seconds for spent in phase] for phase in zip(*phases, strict=True)]
        stack(axes, rounds, parts, list(PHASES.values()))
        axes.set_ylabel(unit)
        round_axis(axes)

    caption = (
        "A round lasts as long as its slowest site: the coloured parts are work, and the grey part is what"
        " the network and waiting add to it."
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


def similarity(run: Run) -> Plot:
    """How alike the clients' models were in the last round."""
    slug, title = "similarity", "Similarity of the sites' models"
    made, said = run.weighed[-1]
    told = mapping(said.get("similarity"))
    sites = [str(name) for name in told.get("sites") or []][:ROWS_AT_MOST]
    cells = [[number(value) for value in row[: len(sites)]] for row in (told.get("matrix") or [])[: len(sites)]]
    if not sites or any(len(row) != len(sites) for row in cells) or len(cells) != len(sites):
        return Plot(slug, title, "The strategy says nothing of how alike the sites' models are.")
    known = [value for row in cells for value in row if value is not None]
    lowest = math.floor(10 * min(known, default=0.0)) / 10
    span = max(1 - lowest, 0.1)

    def draw(axes: Axes) -> None:
        filled = [[math.nan if value is None else value for value in row] for row in cells]
        shades = SHADES.with_extremes(bad="white")
        axes.pcolormesh(filled, cmap=shades, vmin=lowest, vmax=lowest + span, edgecolors="white", linewidth=1.2)
        for y, row in enumerate(cells if len(sites) <= NUMBERED_AT_MOST else []):
            for x, value in enumerate(row):
                shown = "–" if value is None else f"{value:.2f}"
                ink = "white" if value is not None and value - lowest > 0.55 * span else INK
                axes.text(x + 0.5, y + 0.5, shown, ha="center", va="center_baseline", fontsize=8, color=ink)
        names, size = [shortened(name) for name in sites], 10 if len(sites) <= BARS_AT_MOST else 7
        axes.set_xticks([x + 0.5 for x in range(len(sites))], names, fontsize=size)
        axes.set_yticks([y + 0.5 for y in range(len(sites))], names, fontsize=size)
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
        axes.invert_yaxis()
        axes.grid(False)
        axes.spines[:].set_visible(False)

    caption = (
        f"How alike two sites' models see the server's probe set (CKA, round {made}); the darker, the more alike,"
        f" from {lowest:.1f} to 1. A pale row is a site whose model differs from all others."
    )
    return Plot(slug, title, caption, render(slug, title, draw, height=1.3 + min(0.36 * max(len(sites), 5), 4)))


def weights(run: Run) -> Plot:
    """The clients' weights in the mean over the rounds."""
    slug, title = "weights", "Weights of the sites"
    by_round = {made: mapping(said.get("weights")) for made, said in run.weighed}
    sites = sorted({str(name) for told in by_round.values() for name in told})
    if not sites:
        return Plot(slug, title, "The strategy says nothing of the sites' weights.")
    known = {site: [(made, number(told.get(site))) for made, told in by_round.items()] for site in sites}
    curves = {site: [(made, value) for made, value in found if value is not None] for site, found in known.items()}
    named = len(sites) <= STACKED_AT_MOST
    colours = dict(zip(sites, MANY, strict=False)) if named else dict.fromkeys(sites, FULL)

    def draw(axes: Axes) -> None:
        equal = [1 / len(told) if told else math.nan for told in by_round.values()]
        axes.plot(list(by_round), equal, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        for site, found in curves.items():
            line(axes, [made for made, _ in found], [value for _, value in found], colours[site])
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        round_axis(axes)

    keys = [Key(site, colours[site]) for site in sites] if named else [Key("one site each", FULL)]
    keys.append(Key("equal weights", MUTED, "dashed"))
    caption = "How much each site's model counts in the mean; a line far below the others is a site that counts little."
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))


def line(
    axes: Axes,
    rounds: Sequence[int],
    values: Sequence[float],
    colour: str,
    bold: bool = False,
    dashed: bool = False,
) -> None:
    """A curve, with a mark for every round while there are few of them."""
    shape, mark = "--" if dashed else "-", "o" if len(rounds) <= 30 else ""
    width = 2.6 if bold else 1.8
    axes.plot(rounds, values, color=colour, linewidth=width, linestyle=shape, marker=mark, markersize=3.6)


def stack(axes: Axes, rounds: Sequence[int], parts: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
    """Stacked bars, a bar a round."""
    base = [0.0] * len(rounds)
    for part, colour in zip(parts, colours, strict=True):
        top = [below + value for below, value in zip(base, part, strict=True)]
        if any(part) and len(rounds) <= GAPS_AT_MOST:
            axes.bar(rounds, part, 0.78, bottom=base, color=colour)
        elif any(part):
            # One path a part. A round repeated at both its edges makes steps of the area.
            edges = [edge for made in rounds for edge in (made - 0.5, made + 0.5)]
            low, high = ([value for value in side for _ in ("left", "right")] for side in (base, top))
            axes.fill_between(edges, low, high, color=colour, linewidth=0)
        base = top


def percent(axes: Axes) -> None:
    """A vertical axis from 0 to 100%."""
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def round_axis(axes: Axes) -> None:
    """A horizontal axis of whole rounds."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def render(slug: str, title: str, draw: Callable[[Axes], None], height: float = HEIGHT) -> str:
    """Draw into a fresh figure; the same data gives the same text."""
    buffer = io.StringIO()
    with style.context(["default", {**STYLE, "svg.hashsalt": slug}]), warnings.catch_warnings():
        # A character that matplotlib's font lacks is measured roughly here, and drawn by the browser's font.
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline(buffer.getvalue(), slug, title)


def inline(document: str, slug: str, title: str) -> str:
    """An SVG document as an element of an HTML page: no namespaces, ids of its own, no style sheet."""
    root = ElementTree.fromstring(document)
    for parent in list(root.iter()):
        for child in list(parent):
            # A style sheet inside one drawing would apply to the whole page.
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        own = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: localised(name, value, slug) for name, value in own.items()})
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib.update({"role": "img", "aria-label": title})
    return ElementTree.tostring(root, encoding="unicode")


def localised(name: str, value: str, slug: str) -> str:
    """An attribute with the ids of one drawing kept apart from those of the others."""
    if name == "id":
        return f"{slug}-{value}"
    if name == "style":
        return re.sub(r"font-family:[^;]*;? ?", "", value)
    return re.sub(r"^#|(?<=url\()#", f"#{slug}-", value) if name in ("href", "clip-path") else value
