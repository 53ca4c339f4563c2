"""Plots of the sites from the strategy's figures: the similarity of their models, and their weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from server.report.drawing import (
    FULL,
    INK,
    MANY,
    MUTED,
    ROWS_AT_MOST,
    SHADES,
    STACKED_AT_MOST,
    Key,
    Plot,
    heat_map,
    line,
    render,
    round_axis,
    shortened,
)
from server.report.run import Run, mapping, number

NUMBERED_AT_MOST = 8  # most sites of a heat map with numbers in its cells
NAMED_AT_MOST = 12  # most sites of a graph that names all; a larger graph names the LONELY least similar sites
LONELY = 5
NEIGHBOURS = 2  # lines per site in a graph with more than NUMBERED_AT_MOST sites
UNTOLD = "The strategy does not measure the similarity of the sites' models."


@dataclass(frozen=True)
class Likeness:
    """The similarity of the sites' models, or of their changes, after a round. matrix: [N, N], from 0 to 1, 1 on the
    diagonal. measure: the name of the values; runs of earlier releases have CKA and do not name it."""

    round: int
    sites: Sequence[str]
    matrix: Sequence[Sequence[float]]
    measure: str = "CKA"

    @classmethod
    def latest(cls, run: Run) -> "Likeness | None":
        """The strategy's last matrix, or None if it is not a complete matrix of numbers."""
        made, said = run.weighed[-1]
        told = mapping(said.get("similarity"))
        sites, matrix = [str(name) for name in told.get("sites") or []], told.get("matrix") or []
        rows = [[value for cell in row if (value := number(cell)) is not None] for row in matrix]
        whole = len(rows) == len(sites) and all(len(row) == len(sites) for row in rows)
        return cls(made, sites, rows, str(told.get("measure", "CKA"))) if sites and whole else None

    @property
    def lowest(self) -> float:
        """The lower end of the colour scale: the least similarity of two sites, rounded down."""
        return min(math.floor(10 * min(min(row) for row in self.matrix)) / 10, 0.9)

    def loneliest(self, count: int) -> list[int]:
        """The indices of the sites with the least mean similarity to the others, in ascending order."""
        return sorted(sorted(range(len(self.sites)), key=lambda site: sum(self.matrix[site]))[:count])

    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of sites that the graph connects, least similar first.

        If there are few sites, these are all pairs. If there are many sites, each site is connected with the sites that
        are most similar to it.
        """
        count = len(self.sites)
        near = count - 1 if count <= NUMBERED_AT_MOST else NEIGHBOURS
        joined = set()
        for site, row in enumerate(self.matrix):
            others = sorted((other for other in range(count) if other != site), key=lambda other: -row[other])
            joined |= {(min(site, other), max(site, other)) for other in others[:near]}
        return sorted(joined, key=lambda pair: self.matrix[pair[0]][pair[1]])

    def layout(self) -> list[tuple[float, float]]:
        """A position for each site, with similar sites near each other. SMACOF fits the distances to arccos of the
        similarity.

        CKA is the cosine of the angle between two models' centred Gram matrices, and the similarity of changes is the
        cosine of the angle between them (server/aggregation/similarity.py). Angles are distances. Equal models keep a
        small distance. The start is the spectral layout of the similarity, which already separates groups, so the
        result does not depend on chance.
        """
        import networkx as nx  # importing this and scikit-learn takes longer than drawing the other plots
        from sklearn.manifold import smacof

        if len(self.sites) < 3:
            return [(float(site), 0.0) for site in range(len(self.sites))]
        likeness = np.array(self.matrix).clip(0, 1)
        start = nx.spectral_layout(nx.from_numpy_array(likeness))
        angles = np.arccos((likeness + likeness.T) / 2).clip(0.01)
        np.fill_diagonal(angles, 0)
        places, _ = smacof(angles, init=np.array(list(start.values())), n_init=1, normalized_stress=False)
        return [(float(across), float(up)) for across, up in places]


def graph(run: Run) -> Plot:
    """The sites as a graph of similarity. The area of a site is its weight."""
    slug, title = "graph", "Sites with similar models"
    alike = Likeness.latest(run)
    if alike is None:
        return Plot(slug, title, UNTOLD)
    count, told = len(alike.sites), mapping(run.weighed[-1][1].get("weights"))
    areas = [380 * (number(told.get(site)) or 0.0) * math.sqrt(count) for site in alike.sites]
    named = alike.loneliest(count if count <= NAMED_AT_MOST else LONELY)
    places = alike.layout()

    def draw(axes: Axes) -> None:
        for pair in alike.pairs():
            near = (alike.matrix[pair[0]][pair[1]] - alike.lowest) / (1 - alike.lowest)
            across, up = zip(*(places[site] for site in pair), strict=True)
            axes.plot(across, up, color=SHADES(0.15 + 0.85 * near), linewidth=0.6 + 3.4 * near, zorder=1)
        across, up = zip(*places, strict=True)
        axes.scatter(across, up, s=areas, color=MANY[2], edgecolors=INK, linewidth=1, zorder=2)
        for site in named:
            away = math.hypot(*places[site]) or 1.0
            reach = 9 + math.sqrt(areas[site]) / 2
            axes.annotate(
                shortened(alike.sites[site]),
                places[site],
                (reach * places[site][0] / away, reach * places[site][1] / away),
                textcoords="offset points",
                ha="left" if places[site][0] > 0 else "right",
                va="center",
                fontsize=9,
                bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1},
                zorder=3,
            )
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.3, 0.16)
        axes.set_axis_off()

    caption = (
        "Sites are near each other when their models represent the server's probe set in a similar way. A darker line"
        f" means more similarity ({alike.measure}, round {alike.round}). A larger circle means more weight in the mean."
    )
    caption += f" Lines connect each site to the {NEIGHBOURS} most similar sites." if count > NUMBERED_AT_MOST else ""
    caption += " The graph names the sites that are least similar to the others." if count > NAMED_AT_MOST else ""
    return Plot(slug, title, caption, render(slug, title, draw, height=3.6))


def similarity(run: Run) -> Plot:
    """The similarity of the sites' models in the last round, by pair."""
    slug, title = "similarity", "Similarity of the sites' models"
    alike = Likeness.latest(run)
    if alike is None:
        return Plot(slug, title, UNTOLD)
    count, chosen = len(alike.sites), alike.loneliest(ROWS_AT_MOST)
    cells = [[alike.matrix[one][other] for other in chosen] for one in chosen]

    def draw(axes: Axes) -> None:
        heat_map(axes, cells, alike.lowest, 1, "{:.2f}".format if count <= NUMBERED_AT_MOST else None)
        names, size = [shortened(alike.sites[site]) for site in chosen], 10 if count <= NAMED_AT_MOST else 7
        axes.set_xticks([x + 0.5 for x in range(len(chosen))], names, fontsize=size)
        axes.set_yticks([y + 0.5 for y in range(len(chosen))], names, fontsize=size)
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")

    which = (
        f", for the {len(chosen)} of {count} sites that are least similar to the others" if len(chosen) < count else ""
    )
    caption = (
        f"The similarity of two sites' models on the server's probe set ({alike.measure}, round {alike.round}){which}."
        f" Darker means more similar, from {alike.lowest:.1f} to 1. A pale row is a site whose model differs from all"
        " others."
    )
    return Plot(slug, title, caption, render(slug, title, draw, height=1.3 + min(0.36 * max(len(chosen), 5), 4)))


def weights(run: Run) -> Plot:
    """The sites' weights in the mean over the rounds."""
    slug, title = "weights", "Weights of the sites"
    by_round = {made: mapping(said.get("weights")) for made, said in run.weighed}
    sites = sorted({str(name) for told in by_round.values() for name in told})
    if not sites:
        return Plot(slug, title, "The strategy does not report the sites' weights.")
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
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        round_axis(axes)

    keys = [Key(site, colours[site]) for site in sites] if named else [Key("one line per site", FULL)]
    keys.append(Key("equal weights", MUTED, "dashed"))
    caption = "The weight of each site's model in the mean. A line far below the others is a site with little weight."
    return Plot(slug, title, caption, render(slug, title, draw), tuple(keys))
