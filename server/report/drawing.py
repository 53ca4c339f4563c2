"""The drawing of plots as SVG elements that can share one page."""

import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common.words.printable import printable

WIDTH = 5.0  # inches; 360 units across, so that text of 10 units is still legible on a phone
HEIGHT = 3.1
INK, MUTED, GRID, QUIET = "#1f2933", "#52606d", "#e4e7eb", "#c3cad3"
FULL = "#0072b2"
SINGLES = ("#e69f00", "#009e73", "#cc79a7", "#d55e00")
MIXED = ("#56b4e9", "#8c6d1f", "#7f7f7f", "#5e4fa2", "#a6761d", "#1b7837")
MANY = ("#332288", "#88ccee", "#44aa99", "#cc6677", "#ddcc77", "#117733", "#882255", "#999933")
"""The colours of Okabe and Ito for subsets of modalities, and the colours of Paul Tol for everything else. Colour-blind
readers can tell them apart."""
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
STACKED_AT_MOST = 8  # clients
ROWS_AT_MOST = 40  # rows of a heat map
GAPS_AT_MOST = 40  # rounds; with more, bars touch and a series is one path, which keeps the page small


def shortened(value: Any, length: int = 14) -> str:
    """A name cut to fit an axis."""
    name = printable(value)
    return name if len(name) <= length else name[: length - 1] + "…"


@dataclass(frozen=True)
class Key:
    """An entry of a plot's legend. shape: line, dashed or area."""

    label: str
    colour: str
    shape: str = "line"


@dataclass(frozen=True)
class Plot:
    """A plot with its title, caption and legend. svg: empty if there is nothing to draw; the caption has the reason."""

    slug: str
    title: str
    caption: str
    svg: str = ""
    keys: tuple[Key, ...] = ()
    tall: bool = False


def line(
    axes: Axes,
    rounds: Sequence[int],
    values: Sequence[float],
    colour: str,
    bold: bool = False,
    dashed: bool = False,
) -> None:
    """Draw a curve, with a marker per round if there are few rounds."""
    shape, mark = "--" if dashed else "-", "o" if len(rounds) <= 30 else ""
    width = 2.6 if bold else 1.8
    axes.plot(rounds, values, color=colour, linewidth=width, linestyle=shape, marker=mark, markersize=3.6)


def stack(axes: Axes, rounds: Sequence[int], parts: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
    """Draw stacked bars, one bar per round."""
    base = [0.0] * len(rounds)
    for part, colour in zip(parts, colours, strict=True):
        top = [below + value for below, value in zip(base, part, strict=True)]
        if any(part) and len(rounds) <= GAPS_AT_MOST:
            axes.bar(rounds, part, 0.78, bottom=base, color=colour)
        elif any(part):
            # Each part is one path. Each round appears at both its edges, which gives the area steps.
            edges = [edge for made in rounds for edge in (made - 0.5, made + 0.5)]
            low, high = ([value for value in side for _ in ("left", "right")] for side in (base, top))
            axes.fill_between(edges, low, high, color=colour, linewidth=0)
        base = top


def heat_map(
    axes: Axes, cells: Sequence[Sequence[float | None]], low: float, high: float, shown: Callable[[float], str] | None
) -> None:
    """Draw a map of cells, row by row from the top; higher values are darker. shown: formats the text of a cell; None:
    no text."""
    filled = [[math.nan if value is None else value for value in row] for row in cells]
    shades = SHADES.with_extremes(bad="white")
    axes.pcolormesh(filled, cmap=shades, vmin=low, vmax=high, edgecolors="white", linewidth=1.2)
    for y, row in enumerate(cells if shown else []):
        for x, value in enumerate(row):
            ink = "white" if value is not None and value - low > 0.55 * (high - low) else INK
            said = shown(value) if shown and value is not None else "–"
            axes.text(x + 0.5, y + 0.5, said, ha="center", va="center_baseline", fontsize=8, color=ink)
    axes.invert_yaxis()
    axes.grid(False)
    axes.spines[:].set_visible(False)


def percent(axes: Axes) -> None:
    """A vertical axis from 0 to 100%."""
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def round_axis(axes: Axes) -> None:
    """Label the horizontal axis with whole rounds."""
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def render(slug: str, title: str, draw: Callable[[Axes], None], height: float = HEIGHT) -> str:
    """The SVG of a new figure. The same data gives the same text."""
    buffer = io.StringIO()
    with style.context(["default", {**STYLE, "svg.hashsalt": slug}]), warnings.catch_warnings():
        # matplotlib estimates the width of characters that its font lacks; the browser draws them with its own font.
        warnings.simplefilter("ignore")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline(buffer.getvalue(), slug, title)


def inline(document: str, slug: str, title: str) -> str:
    """An SVG document as an element of an HTML page: without namespaces and style sheet, with unique ids."""
    root = ElementTree.fromstring(document)
    for parent in list(root.iter()):
        for child in list(parent):
            # The style sheet of one drawing would apply to the whole page.
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
    """The value of an attribute, with the drawing's slug before every id so that ids are unique on the page."""
    if name == "id":
        return f"{slug}-{value}"
    if name == "style":
        return re.sub(r"font-family:[^;]*;? ?", "", value)
    return re.sub(r"^#|(?<=url\()#", f"#{slug}-", value) if name in ("href", "clip-path") else value
