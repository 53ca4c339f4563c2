"""Every value of every run of a benchmark, as JSON and as a table."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.files import write_whole
from deploy.study.bench.results import Results
from deploy.study.bench.statistics import COSTS, chosen_round, measure, validated
from deploy.study.bench.trial import Figures

COLUMNS = ("setting", "method", "seed", "stage", "option", "value", "status", "measure", "result")


def write_runs(settings: Sequence[Results], out: Path) -> list[Path]:
    """Write results.json with one entry per run, and results.csv with one row per run and measure. Returns their
    paths."""
    runs = [run for results in settings for run in _runs(results)]
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for run in runs:
        rows.writerows([*(run[name] for name in COLUMNS[:-2]), name, value] for name, value in run["measures"].items())
    suite = settings[0].suite
    content = {"suite": suite.name, "metric": settings[0].metric, "shards": suite.shards, "runs": runs}
    files = [out / "results.json", out / "results.csv"]
    write_whole(files[0], json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")
    write_whole(files[1], text.getvalue().encode())
    return files


def _runs(results: Results) -> Iterator[dict[str, Any]]:
    for stage, found in (("table", results.runs), ("tuning", results.tuning)):
        for runs in found.values():
            yield from (_run(results, run, stage) for run in runs)


def _run(results: Results, run: Figures, stage: str) -> dict[str, Any]:
    option = results.suite.tuning.option
    head = {key: run[key] for key in ("setting", "method", "seed")} | {"stage": stage, "option": option}
    head |= {"value": run["value"], "status": run["status"], "reason": run.get("reason", "")}
    return head | {"measures": _measures(results, run), "validation": _validation(results, run)}


def _measures(results: Results, run: Figures) -> dict[str, float]:
    """The measures of the tables, every metric of every subset of modalities in the last round, and the costs."""
    if run["status"] != "completed":
        return {}
    subsets = run["rounds"][-1]["test"]
    names = [
        *results.measures,
        *(f"{metric}:{part}" for part, metrics in subsets.items() for metric in metrics),
        *COSTS,
    ]
    found = {name: measure(run, name, results.aim) for name in dict.fromkeys(names)}
    return {name: value for name, value in found.items() if value is not None}


def _validation(results: Results, run: Figures) -> dict[str, Any]:
    """The main metric on validation by round, and the round that it chooses."""
    if run["status"] != "completed":
        return {}
    return {"by_round": validated(run, results.aim), "chosen_round": chosen_round(run, results.aim)}
