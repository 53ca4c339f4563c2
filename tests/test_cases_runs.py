"""Runs that went wrong in other people's worlds."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import RAW, experiment

from client.site import Site
from deploy.engines.display import show, show_sites
from deploy.engines.in_process import InProcessGrid, claim_identity
from deploy.engines.launch import executable
from deploy.terminal import terminal
from server.record.run_folder import RunFolder
from server.report.page import write_report
from server.rounds.federation import Federation


def spoiled(shard: Path, folder: Path) -> tuple[Path, int]:
    """A copy of a shard of whose pictures all but one are ten random bytes; how many there are."""
    shutil.copytree(shard, folder)
    _, *broken = sorted((folder / "image").iterdir())
    for path in broken:
        path.write_bytes(b"0123456789")
    return folder, len(broken) + 1


def test_a_site_with_next_to_nothing_is_an_alarm_in_table_report_and_summary(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    claim_identity()
    shard, count = spoiled(tiny_shards / "client-1", tmp_path / "shard")
    said = f"{count - 1} of {count} image values ({(count - 1) / count:.0%}) cannot be read"
    chosen = experiment(data__max_unreadable=1.0, federation__rounds=1)
    run = Federation(
        chosen, InProcessGrid([Site(tiny_shards / "client-0"), Site(shard)]), None, RunFolder(tmp_path / "run", chosen)
    )
    run.run()
    about = {"name": "x", "status": "completed", "reason": "", "engine": "x", "method": "m", "dataset": "d"}
    run.run_folder.summary(about | run.summary() | {"seconds": 1.0})
    assert run.summary()["sites"]["client-1"]["unreadable"] == count - 1
    show_sites(terminal(width=150), json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0]))
    show(tmp_path / "run")
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count(said) == 2  # before round 1 and at the end
    page = write_report(tmp_path / "run").read_text()
    assert said in page and f"<b>{count - 1} of {2 * count}" in page  # of sounds and pictures
    for told in (run.summary()["sites"]["client-1"]["findings"]["image"]["reasons"], page):
        assert not any(path.stem in str(told) for path in (shard / "image").iterdir())  # no name of a file leaves
    refused = experiment(federation__rounds=1, federation__min_replies=1, federation__wait_seconds=1.0)
    grid = InProcessGrid([Site(tiny_shards / "client-0"), Site(shard)])
    run = Federation(refused, grid, None, RunFolder(tmp_path / "other", refused))
    run.run()
    assert (
        said in run.summary()["refused"]["client-1"] and "data.max_unreadable" in run.summary()["refused"]["client-1"]
    )


@pytest.mark.network
@pytest.mark.slow
def test_loopback_goes_through_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # nor are Flower's commands on it
    chosen = {**RAW, "federation": {"rounds": 1, "wait_seconds": 300}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(chosen))
    command = [executable("fedmosaic"), "run", "tiny.yaml", "--engine", "processes", "--quiet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())["rounds"] == 1
