"""The picture of one setting: the figures of every seed by method, and the course of training."""

import math
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.words.figures import title
from deploy.study.bench.pages.words import form
from deploy.study.bench.results import Results
from deploy.study.bench.statistics import measure
from deploy.study.form import Form


def draw(results: Results, path: Path) -> None:
    """Draw three panels: the main metric with all modalities, the table's second measure, and the first by round."""
    figure = Figure(figsize=(13, 1.6 + 0.32 * len(results.runs)), layout="constrained", dpi=110)
    panels = figure.subplots(1, 3, width_ratios=[1, 1, 1.1])
    _dots(results, panels[0], results.metric, _fused(results))
    second = (*results.main, "chosen")[1]
    _dots(results, panels[1], second, _label(results, second))
    panels[1].set_yticklabels([])
    _curves(results, panels[2])
    figure.suptitle(results.suite.settings[results.setting].title, fontsize=11)
    figure.savefig(path)


def _fused(results: Results) -> str:
    return f"fused {title(results.metric)}{_unit(results, results.metric)}"


def _unit(results: Results, name: str) -> str:
    return ", %" if form(name, results.metric).percent else ""


def _label(results: Results, name: str) -> str:
    kind, _, modality = name.partition(":")
    if not modality:
        return f"chosen round{_unit(results, name)}"
    return f"linear probe of {modality}, %" if kind == "probe" else f"{modality} alone{_unit(results, name)}"


def _dots(results: Results, axes: Axes, name: str, label: str) -> None:
    """Draw one point per seed, a bar at the mean, and a line at the reference's mean.

    The axis fits the federated rows. The mean of a row outside of this range, e.g. of clients that train alone, is a
    number at the edge.
    """
    rows = results.suite.methods
    factor = form(name, results.metric).factor
    means = {m: factor * found.mean for m in results.runs if (found := results.summary(m, name)) is not None}
    values = {
        m: [factor * v for run in results.runs[m] if (v := measure(run, name, results.aim)) is not None] for m in means
    }
    inside = [value for m in means if rows[m].arrangement == "federated" for value in values[m]]
    axes.set_xlabel(label, fontsize=9)
    if not inside:  # all federated runs diverged
        return
    margin = 3 if factor != 1 else 0.1 * (max(inside) - min(inside)) or 0.1
    low, high = min(inside) - margin, max(inside) + margin
    for row, method in enumerate(results.runs):
        if method not in means:
            continue
        if not low <= means[method] <= high:
            left = means[method] < low
            text = f"← {means[method]:.3g}" if left else f"{means[method]:.3g} →"
            axes.text(low if left else high, row, text, va="center", ha="left" if left else "right", fontsize=8)
            continue
        colour = "C3" if method in results.references[:1] else "C0"
        axes.plot(values[method], np.full(len(values[method]), row), "o", color=colour, alpha=0.45, markersize=5)
        axes.plot([means[method]], [row], "|", color="black", markersize=15, markeredgewidth=2)
    for reference in means.keys() & set(results.references[:1]):
        axes.axvline(means[reference], color="C3", linewidth=0.8, linestyle="--")
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(results.runs)), [rows[method].title for method in results.runs], fontsize=8)
    axes.set_ylim(len(results.runs) - 0.5, -0.5)
    axes.grid(axis="x", alpha=0.3)


def _curves(results: Results, axes: Axes) -> None:
    """Draw the methods' mean of the main metric by round, without ablations, which would be too many lines."""
    rows = results.suite.methods
    methods = [m for m in results.runs if rows[m].arrangement == "federated" and rows[m].tuned_as is None]
    shown = [m for m in methods if results.summary(m, results.metric) is not None]
    colours = matplotlib.colormaps["tab10"]
    for index, method in enumerate(shown):
        runs = [run for run in results.runs[method] if run["status"] == "completed"]
        curves = [
            [line["test"][run["complete"]].get(results.metric, math.nan) for line in run["rounds"]] for run in runs
        ]
        mean = Form.of(results.metric).factor * np.mean(curves, axis=0)
        axes.plot(
            range(len(mean)), mean, color=colours(index), label=results.suite.methods[method].title, linewidth=1.4
        )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("round", fontsize=9)
    axes.set_ylabel(_fused(results), fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
