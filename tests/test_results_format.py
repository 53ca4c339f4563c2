"""The files of real runs have the published format."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import experiment
from test_cli import call

from server.record.format import FORMAT, RoundLine, Summary

KINDS: dict[str, dict[str, Any]] = {
    "single-label": {"federation__keep": {"best": "auroc on validation"}, "federation__patience": 5},
    "multi-label": {"task": "multi-label", "data__set": {"name": "digit-facts"}, "method": "fedavg"},
    "regression": {
        "task": {"name": "regression", "mean": {"digit": 4.5}, "std": {"digit": 2.9}},
        "data__set": {"name": "digit-facts", "labels": "value"},
        "method": "fedavg",
        "train__lr": 0.001,
    },
    "failed": {"train__lr": 1e9},
}


def checked(folder: Path) -> Summary:
    """The summary, after every line and the summary were read strictly."""
    lines = [RoundLine.model_validate_json(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[0].format == FORMAT and lines[0].round == 0 and lines[0].sites
    return Summary.model_validate_json((folder / "summary.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_writes_the_published_format(kind: str, tmp_path: Path) -> None:
    chosen = experiment(**KINDS[kind], name="run")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(json.loads(chosen.to_json())))
    options = ("--engine", "inprocess", "--shards", tmp_path / "shards", "--run-dir", tmp_path / "run")
    assert call("run", tmp_path / "x.yaml", *options) == (1 if kind == "failed" else 0)
    summary = checked(tmp_path / "run")
    assert summary.format == FORMAT and (summary.status == "failed") == (kind == "failed")
    assert (summary.best is not None) == (kind == "single-label")
    assert bool(summary.intervals) == (kind != "failed")


def test_a_run_that_starts_from_another_says_so_in_the_published_format(tiny_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(json.loads(experiment().to_json())))
    options = ("--engine", "inprocess", "--shards", tiny_shards)
    assert call("run", tmp_path / "x.yaml", *options, "--run-dir", tmp_path / "one") == 0
    assert call("run", tmp_path / "x.yaml", *options, "--run-dir", tmp_path / "two", "--init", tmp_path / "one") == 0
    assert checked(tmp_path / "two").started_from
