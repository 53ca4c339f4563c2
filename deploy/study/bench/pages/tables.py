"""The results of one setting as JSON, Markdown, LaTeX and a picture."""

import dataclasses
import json
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from common.words.figures import title
from deploy.study.bench.origin import command
from deploy.study.bench.pages.latex import latex
from deploy.study.bench.pages.plots import draw
from deploy.study.bench.pages.words import OWN_SHARDS, compared, form, head, opening, points
from deploy.study.bench.results import Results
from deploy.study.bench.runner import validation_score
from deploy.study.bench.statistics import COSTS, Difference, Summary
from deploy.study.form import Form


def write(results: Results, out: Path) -> list[Path]:
    """Write <suite>-<setting>.json, .md, .tex and .png. Returns their paths."""
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{results.suite.name}-{results.setting}"
    files = [out / f"{stem}{suffix}" for suffix in (".json", ".md", ".tex", ".png")]
    files[0].write_text(json.dumps(_content(results), indent=1, allow_nan=False) + "\n")
    files[1].write_text(markdown(results))
    files[2].write_text(latex(results))
    draw(results, files[3])
    return files


def _content(results: Results) -> dict[str, Any]:
    score = partial(validation_score, aim=results.aim)
    rows = {}
    for method, runs in results.runs.items():
        measures = {}
        for name in [*results.measures, *COSTS]:
            if (summary := results.summary(method, name)) is None:
                continue
            others = [] if name in COSTS else results.references
            found = {other: results.difference(method, name, other) for other in others}
            known = {other: dataclasses.asdict(value) for other, value in found.items() if value is not None}
            measures[name] = {**dataclasses.asdict(summary), "differences": known}
        rows[method] = {
            "title": results.suite.methods[method].title,
            results.suite.tuning.option: runs[0]["value"],
            "diverged": [run["seed"] for run in runs if run["status"] == "diverged"],
            "measures": measures,
            "seconds": sum(run["seconds"] for run in runs),
            "tuning": [
                {"value": run["value"], "seed": run["seed"], "status": run["status"], "score": score(run)}
                for run in results.tuning[method]
            ],
        }
    setting = results.suite.settings[results.setting]
    return {
        "setting": results.setting,
        "title": setting.title,
        "changes": setting.set,
        "hostile": setting.hostile and setting.hostile.model_dump(),
        "metric": results.metric,
        "shards": results.suite.shards,
        "experiment": results.suite.experiment,
        "command": command(),
        "commits": results.commits,
        "machine": results.machine,
        "rows": rows,
    }


def markdown(results: Results) -> str:
    """The Markdown tables of a setting, with an explanation and the origin of the figures."""
    setting = results.suite.settings[results.setting]
    seeds = sorted({run["seed"] for runs in results.runs.values() for run in runs})
    rest = [name for name in results.measures if name not in results.main]
    probe = " Probe: accuracy of a linear classifier on the frozen encoder of that modality." if setting.weak else ""
    lines = [
        f"# {setting.title}",
        "",
        f"{opening(results.metric)} on the test part after the last round: mean ± standard deviation over "
        f"{len(seeds)} seeds ({', '.join(map(str, seeds))}). Δ: paired difference{points(results.metric)}, with its "
        f"95 % confidence interval. Only: prediction from those modalities alone by the method's own model.{probe}",
        *([f"\n{OWN_SHARDS}"] if results.suite.shards else []),
        "",
        *_table(results, results.main, results.references),
        "",
        "Spread: standard deviation of the recall over classes, in points. Chosen round: the one that is best on "
        "validation.",
        "",
        *_table(results, rest, []),
        "",
        "Cost, median over the seeds. MB per update: what one client sends in one round. Training: seconds of training "
        "of all clients in all rounds. Processor: its seconds for the whole run, evaluations included. Seconds depend "
        "on the machine and on its other work.",
        "",
        *_costs(results),
    ]
    return "\n".join([*lines, "", *_provenance(results)]) + "\n"


def _table(results: Results, names: Sequence[str], references: Sequence[str]) -> list[str]:
    """The lines of a table with one row per method. Each measure is followed by its differences to the references."""
    suite = results.suite
    heads = ["method", suite.tuning.option]
    for name in names:
        heads.append(head(name, results.metric))
        heads += [f"Δ {suite.methods[reference].title}" for reference in compared(name, references)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for method, runs in results.runs.items():
        cells = [suite.methods[method].title, f"{runs[0]['value']:g}"]
        if diverged := sum(run["status"] == "diverged" for run in runs):
            cells[0] += f" ({diverged} of {len(runs)} seeds diverged and are left out)"
        for name in names:
            written = form(name, results.metric)
            cells.append(_cell(written, results.summary(method, name)))
            cells += [_delta(written, results.difference(method, name, other)) for other in compared(name, references)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _costs(results: Results) -> list[str]:
    """The lines of the table of costs."""
    lines = ["| method | MB per update | training, s | processor, s |", "|---|---|---|---|"]
    for method in results.runs:
        found = [results.summary(method, name) for name in COSTS]
        size, *seconds = [None if cost is None else statistics.median(cost.values.values()) for cost in found]
        cells = ["–" if size is None else f"{size / 1e6:.3g}", *("–" if s is None else f"{s:.3g}" for s in seconds)]
        lines.append("| " + " | ".join([results.suite.methods[method].title, *cells]) + " |")
    return lines


def _cell(written: Form, summary: Summary | None) -> str:
    if summary is None:
        return "–"
    return f"{written.number(summary.mean)} ± {written.number(summary.deviation)}"


def _delta(written: Form, found: Difference | None) -> str:
    if found is None:
        return "–"
    return f"{written.number(found.mean, '+')} [{written.number(found.low, '+')}, {written.number(found.high, '+')}]"


def _provenance(results: Results) -> list[str]:
    suite, setting = results.suite, results.suite.settings[results.setting]
    tuning = suite.tuning
    seconds = sum(run["seconds"] for runs in (*results.runs.values(), *results.tuning.values()) for run in runs)
    place = setting.tuned_in or results.setting
    hostile = {"hostile sites": setting.hostile.model_dump()} if setting.hostile else {}
    values = ", ".join(f"{value:g}" for value in tuning.values)
    where = "here" if place == results.setting else f"in the setting {place}"
    return [
        f"{tuning.option} was chosen {where} by {title(results.metric)} on validation among {values} "
        f"with seed{'s' * (len(tuning.seeds) > 1)} {', '.join(map(str, tuning.seeds))}, the same for every method; "
        "ablations have the value of the method they change.",
        "",
        f"Command: `{command()}`; code at {', '.join(results.commits)}; {results.machine}; "
        f"{seconds / 3600:.1f} hours of one core in all, tuning included.",
        "",
        "```yaml",
        yaml.safe_dump(
            {**suite.experiment, "changed in this setting": setting.set, **hostile}, sort_keys=False
        ).strip(),
        "```",
    ]
