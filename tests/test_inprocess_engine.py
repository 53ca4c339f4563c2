"""`fedmosaic run --engine inprocess`: the same run folder, exit status and bits as the other engines."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
import yaml
from conftest import RAW, experiment
from running import running
from safetensors.torch import load_file
from test_cli import call

from client.site import Site
from deploy.engines.in_process import InProcessGrid
from deploy.engines.launch import executable
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation


def config(folder: Path, **changes: object) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(yaml.safe_dump({**RAW, **changes}))
    return path


def same_model(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_leaves_what_every_run_leaves_and_shows_its_rounds(
    here: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", config(here), "--engine", "inprocess", "--shards", tiny_shards, "--run-dir", here / "run") == 0
    shown = capsys.readouterr().out
    assert [f"round {n:>3}/2" in shown for n in (0, 1, 2)] == [True] * 3
    assert "report:" in shown
    summary = json.loads((here / "run" / "summary.json").read_text())
    assert (summary["status"], summary["engine"], summary["rounds"]) == ("completed", "inprocess", 2)
    assert {path.name for path in (here / "run").iterdir()} >= {
        *("experiment.yaml", "metrics.jsonl", "model.safetensors", "checkpoints", "report.html", "logs"),
    }
    assert "round 2:" in (here / "run" / "logs" / "run.log").read_text()


def test_a_failed_run_says_why_and_ends_with_status_1(
    here: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = config(here, train={"epochs": 1, "batch_size": 16, "lr": 1e12})
    assert call("run", chosen, "--engine", "inprocess", "--shards", tiny_shards, "--run-dir", here / "run") == 1
    said = capsys.readouterr()
    assert "diverged" in said.err
    assert "Traceback" not in said.err + said.out
    assert "diverged" in json.loads((here / "run" / "summary.json").read_text())["reason"]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_interrupted_run_goes_on_to_the_same_model(here: Path, tiny_shards: Path) -> None:
    chosen = config(here, federation={"rounds": 20})
    run = ["run", chosen, "--engine", "inprocess", "--shards", tiny_shards]
    command = [executable("fedmosaic"), *run]
    metrics, deadline = here / "runs" / "tiny" / "metrics.jsonl", time.monotonic() + 200
    with running(command, cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    summary = json.loads((here / "runs" / "tiny" / "summary.json").read_text())
    assert (summary["status"], summary["reason"]) == ("failed", "interrupted")
    assert summary["rounds"] < 20
    assert call(*run, "--resume") == 0
    assert call(*run, "--run-dir", here / "whole") == 0
    assert same_model(here / "runs" / "tiny", here / "whole")


def test_a_client_that_raises_is_named_and_the_round_goes_on(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = [Site(tiny_shards / f"client-{index}") for index in range(2)]

    def fail(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(sites[1], "train_round", fail)
    chosen = experiment(federation__min_replies=1, federation__rounds=1)
    Federation(chosen, InProcessGrid(sites), None, RunFolder(tmp_path, chosen)).run()
    line = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1])
    assert set(line["clients"]) == {"client-0"}
    assert "a bug" in line["failed"]["client-1"]


def test_a_model_that_is_used_again_keeps_nothing_of_the_client_before(tiny_shards: Path, tmp_path: Path) -> None:
    """client-0 holds both modalities and trains all blocks, client-1 audio alone: alone it must give the same."""
    chosen = experiment(federation__rounds=1, federation__min_replies=1, federation__wait_seconds=1)
    lines = []
    for name, indices in (("both", (0, 1)), ("alone", (1,))):
        grid = InProcessGrid([Site(tiny_shards / f"client-{index}") for index in indices])
        Federation(chosen, grid, None, RunFolder(tmp_path / name, chosen)).run()
        lines.append(json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[1])["clients"]["client-1"])
    for figure in ("losses", "validation"):
        assert lines[0][figure] == lines[1][figure]


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_simulation_gives_the_same_bits(here: Path, tiny_shards: Path) -> None:
    chosen = config(here, federation={**RAW["federation"], "wait_seconds": 600})
    for engine in ("inprocess", "simulation"):
        run = ["run", chosen, "--engine", engine, "--shards", tiny_shards, "--run-dir", here / engine]
        assert call(*run) == 0
        summary = json.loads((here / engine / "summary.json").read_text())
        assert (summary["status"], summary["rounds"], summary["engine"]) == ("completed", 2, engine)
        assert (here / engine / "report.html").stat().st_size > 10_000
    assert same_model(here / "inprocess", here / "simulation")


def test_a_script_reads_the_summary_or_nothing_but_the_folder(
    tmp_path: Path, tiny_shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "experiment.yaml"
    config.write_text(yaml.safe_dump(RAW))
    asked = ["run", config, "--engine", "inprocess", "--shards", tiny_shards, "--run-dir"]
    assert call(*asked, tmp_path / "first", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((tmp_path / "first" / "summary.json").read_text())
    assert "round   2/2" in said.err
    assert call(*asked, tmp_path / "second", "--quiet") == 0
    assert capsys.readouterr() == (f"{tmp_path / 'second'}\n", "")
