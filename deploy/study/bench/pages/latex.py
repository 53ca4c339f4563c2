"""The first table of a setting in LaTeX, for the package booktabs."""

import re

from deploy.study.bench.pages.words import OWN_SHARDS, compared, form, head, opening, points
from deploy.study.bench.results import Results
from deploy.study.bench.statistics import Difference, Summary
from deploy.study.form import Form

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "–": "--",
    "Δ": r"$\Delta$",
    "±": r"$\pm$",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
}


def escaped(text: str) -> str:
    """A text with LaTeX's special characters escaped."""
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda found: SPECIAL[found[0]], text)


def latex(results: Results) -> str:
    """A table environment with one row per method: mean and deviation of each measure, with the best federated row in
    bold, and the differences to the references with their confidence intervals."""
    columns = [(name, [r for r in results.references if r in compared(name, results.references)])
               for name in results.main]  # fmt: skip
    heads = ["Method", *(cell for name, others in columns for cell in _heads(results, name, others))]
    best = {name: _best(results, name) for name in results.main}
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_caption(results)}}}",
        f"  \\label{{tab:{results.suite.name}-{re.sub('[^A-Za-z0-9-]', '-', results.setting)}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"    \toprule",
        f"    {' & '.join(heads)} \\\\",
        r"    \midrule",
    ]
    for method in results.runs:
        cells = [escaped(results.suite.methods[method].title)]
        for name, others in columns:
            written = form(name, results.metric)
            cells.append(_cell(written, results.summary(method, name), method in best[name]))
            cells += [_delta(written, results.difference(method, name, other)) for other in others]
        lines.append(f"    {' & '.join(cells)} \\\\")
    end = [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join([r"% needs \usepackage{booktabs}", *lines, *end]) + "\n"


def _heads(results: Results, name: str, references: list[str]) -> list[str]:
    differences = [rf"$\Delta$ {escaped(results.suite.methods[other].title)}" for other in references]
    return [escaped(head(name, results.metric)), *differences]


def _best(results: Results, name: str) -> set[str]:
    """The federated methods with the best mean, as it is printed."""
    written = form(name, results.metric)
    means = {
        method: written.number(summary.mean)
        for method in results.runs
        if results.suite.methods[method].arrangement == "federated"
        and (summary := results.summary(method, name)) is not None
    }
    merit = float if name.startswith("probe:") else lambda mean: results.aim.merit(float(mean))
    best = max(means.values(), key=merit, default="")
    return {method for method, mean in means.items() if mean == best}


def _caption(results: Results) -> str:
    seeds = {run["seed"] for runs in results.runs.values() for run in runs}
    said = (
        f"{results.suite.settings[results.setting].title}. {opening(results.metric)} on the test examples: "
        f"mean ± standard deviation over {len(seeds)} seeds. Δ: paired difference{points(results.metric)} with its "
        "95 % confidence interval. Bold: the best federated method."
    )
    return escaped(f"{said} {OWN_SHARDS}" if results.suite.shards else said)


def _cell(written: Form, summary: Summary | None, bold: bool) -> str:
    if summary is None:
        return "--"
    mean = written.number(summary.mean)
    shown = rf"\textbf{{{mean}}}" if bold else mean
    return rf"{shown} $\pm$ {written.number(summary.deviation)}"


def _delta(written: Form, found: Difference | None) -> str:
    if found is None:
        return "--"
    mean, low, high = (written.number(value, "+") for value in (found.mean, found.low, found.high))
    return f"${mean}$ [${low}$, ${high}$]"
