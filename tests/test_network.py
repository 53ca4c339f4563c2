"""Real SuperLinks, SuperNodes and client processes on the loopback interface."""

import json
import os
import re
import signal
import subprocess
import time
import uuid
from pathlib import Path

import grpc
import pytest
import torch
import yaml
from conftest import RAW, ROOT, SHARED_DATA
from running import running
from safetensors.torch import load_file
from test_cli import call

from deploy.engines.launch import FlowerCommand, Link, executable
from deploy.engines.processes import MARK, Processes, free_ports, wait_for_port
from deploy.hosts.environment import SETTINGS

TAG = "FEDMOSAIC_TEST"
pytestmark = [pytest.mark.network, pytest.mark.timeout(1500)]


def config(folder: Path, **changes: object) -> Path:
    path = folder / "experiment.yaml"
    patient = {**RAW["federation"], "wait_seconds": 600}  # for nodes on a machine that is busy
    path.write_text(yaml.safe_dump({**RAW, "federation": patient, **changes}))
    return path


def fedmosaic(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [executable("fedmosaic"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=1000)


@pytest.fixture(autouse=True)
def _tag(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started here is told from what other tests start at the same time."""
    monkeypatch.setenv(TAG, uuid.uuid4().hex)


def launched() -> set[int]:
    """Processes that some launch of this test started and that still run."""
    found, tag = set(), f"{TAG}={os.environ[TAG]}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            if MARK.encode() in environment and tag in environment:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def clients_of_port(port: int) -> set[str]:
    """The programs that hold an established connection to a port of this machine."""
    inodes = set()
    lines = [line for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    for fields in map(str.split, lines):
        if fields[2].endswith(f":{port:04X}") and fields[3] == "01":
            inodes.add(f"socket:[{fields[9]}]")
    programs = set()
    for pid in launched():
        try:
            held = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            if held & inodes:
                programs.add(f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes().decode()}")
        except OSError:
            continue
    return {program for program in programs if "supernode" in program}


def test_processes_give_the_same_parameters_over_the_grpc_fleet_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As one process does; tests/test_inprocess_engine.py has the same of the simulation."""
    monkeypatch.chdir(tmp_path)
    chosen, before = config(tmp_path), launched()
    first = tmp_path / "runs" / "tiny"
    command = [executable("fedmosaic"), "run", str(chosen), "--engine", "processes"]
    with (
        (tmp_path / "output").open("w") as output,
        running(command, cwd=tmp_path, stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        while not (first / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.1)
        fleet = int((first / "logs" / "fleet-port").read_text())
        nodes = clients_of_port(fleet)
        with grpc.insecure_channel(f"127.0.0.1:{fleet}") as channel:
            grpc.channel_ready_future(channel).result(timeout=200)  # speaks HTTP/2; the other ports do not
        assert process.wait(timeout=1000) == 0, (tmp_path / "output").read_text()
    assert len(nodes) == 2
    for index in range(2):
        words, flowers = ((first / "logs" / f"supernode-{index}{kind}.log").read_text() for kind in ("", "-flower"))
        assert f"channel to 127.0.0.1:{fleet}" in flowers
        assert flowers.count("Receiving: train message") == 2
        assert re.findall(r"\d\d:\d\d:\d\d (a run of tiny begins|round . of 2):", words) == [
            "a run of tiny begins", "round 1 of 2", "round 2 of 2",
        ]  # fmt: skip
        assert "Receiving" not in words

    assert call("run", chosen, "--engine", "inprocess") == 0
    second = tmp_path / "runs" / "tiny-2"
    models = [load_file(folder / "model.safetensors") for folder in (first, second)]
    assert models[0].keys() == models[1].keys()
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])

    for folder, engine in ((first, "processes"), (second, "inprocess")):
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["status"], summary["rounds"], summary["engine"]) == ("completed", 2, engine)
        assert (folder / "report.html").stat().st_size > 10_000
    assert "report:" in capsys.readouterr().out
    assert launched() <= before


@pytest.mark.slow
def test_a_failed_run_has_a_reason_and_a_non_zero_status(tmp_path: Path) -> None:
    before = launched()
    chosen = config(tmp_path, train={"epochs": 1, "batch_size": 16, "lr": 1e12})
    done = fedmosaic("run", chosen, "--engine", "processes", cwd=tmp_path)
    assert done.returncode == 1
    assert "diverged" in done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "diverged" in summary["reason"]
    assert launched() <= before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_command_that_started_it(number: int, tmp_path: Path) -> None:
    before = launched()
    chosen = config(tmp_path, federation={"rounds": 500})
    command = [executable("fedmosaic"), "run", str(chosen), "--engine", "processes"]
    metrics = tmp_path / "runs" / "tiny" / "metrics.jsonl"
    deadline = time.monotonic() + 600
    with running(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while not metrics.exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.2)
        assert len(launched() - before) >= 4
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
        if number != signal.SIGKILL:
            assert process.returncode == 130
            assert "interrupted" in errors
    while launched() - before and time.monotonic() < deadline + 300:
        assert number == signal.SIGKILL
        time.sleep(0.5)
    assert launched() <= before


@pytest.mark.parametrize(
    "engine",
    [
        "inprocess",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("simulation", marks=pytest.mark.slow),
    ],
)
def test_real_digits_train_end_to_end(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (SHARED_DATA / "fsdd").is_dir():
        pytest.skip("the recordings and images of av-digits are not on this machine")
    data = {
        "set": {"name": "av-digits", "mnist": str(SHARED_DATA / "mnist"), "fsdd": str(SHARED_DATA / "fsdd")},
        "clients": 2,
        "limit": 200,
    }
    monkeypatch.chdir(tmp_path)
    assert call("run", config(tmp_path, data=data), "--engine", engine) == 0
    summary = json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())
    assert summary["dataset"] == "av-digits"
    assert sum(site["num_examples"] for site in summary["sites"].values()) == 200
    assert summary["scores"].keys() == {"audio", "image", "audio+image"}


def start_federation(processes: Processes, folder: Path, shards: Path) -> int:
    """Start a SuperLink and two SuperNodes with Flower's own commands; return the port of the control API."""
    port, fleet, *nodes = free_ports(4)
    link = ["--insecure", "--disable-runtime-dependency-installation", "--host", "127.0.0.1", "--port", str(port)]
    link += ["--fleet-api-address", f"127.0.0.1:{fleet}"]
    processes.start("superlink", [executable("flower-superlink"), *link], folder)
    wait_for_port(fleet, processes, 60)
    wait_for_port(port, processes, 60)
    for index, node in enumerate(nodes):
        place = ["--superlink", f"127.0.0.1:{fleet}", "--host", "127.0.0.1", "--port", str(node)]
        told = ["--node-config", f"shard='{shards}/client-{index}' site='hospital-{index}'"]
        processes.start(f"node-{index}", [executable("flower-supernode"), "--insecure", *place, *told], folder)
    return port


@pytest.mark.slow
def test_a_running_superlink_serves_fedmosaic_run_and_flwr_run(tiny_shards: Path, tmp_path: Path) -> None:
    path = f"{Path(executable('flwr')).parent}:{os.environ['PATH']}"
    processes = Processes(tmp_path / "logs", SETTINGS | {"FLWR_HOME": str(tmp_path / "home"), "PATH": path})
    try:
        port = start_federation(processes, tmp_path, tiny_shards)
        where = ["--engine", "superlink", "--address", f"127.0.0.1:{port}", "--insecure"]
        test = ["--test-shard", tiny_shards / "test"]
        done = fedmosaic("run", config(tmp_path), *where, *test, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads((tmp_path / "runs" / "tiny" / "summary.json").read_text())
        assert set(summary["sites"]) == {"hospital-0", "hospital-1"}

        flower = FlowerCommand(tmp_path / "cli", Link(f"127.0.0.1:{port}"), processes.env)
        settings = {"experiment": str(config(tmp_path)), "test-shard": "", "run-dir": str(tmp_path / "by-flwr")}
        (tmp_path / "run.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))
        run_id = flower.submit(ROOT, "", "--run-config", str(tmp_path / "run.toml"))
        deadline = time.monotonic() + 600
        while not (status := flower.status(run_id)[0]).startswith("finished") and time.monotonic() < deadline:
            time.sleep(1)
        assert status == "finished:completed", processes.log("superlink").read_text()[-3000:]
        assert json.loads((tmp_path / "by-flwr" / "summary.json").read_text())["measured_on"] == "validation"
    finally:
        processes.stop()


@pytest.mark.slow
def test_frozen_models_complete_and_encode_for_client_processes(tmp_path: Path) -> None:
    ran = fedmosaic(
        "run", ROOT / "configs" / "birds-mini-fedmvp.yaml", "--engine", "processes", "--run-dir", "run",
        "--set", "federation.rounds=1", "--set", "data.limit=60", "--set", "data.test_limit=20",
        "--set", "completion.text.words=8", "--set", "completion.text.candidates=1", cwd=tmp_path,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "image values made" in ran.stdout and "text values made, CLIP score" in ran.stdout
    (line,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][1:]
    assert sum(line["aggregation"]["weights"].values()) == pytest.approx(1)
    report = (tmp_path / "run" / "report.html").read_text()
    assert "client-2" in report
    sent = load_file(tmp_path / "run" / "model.safetensors")
    assert not any("tower" in name or "visual" in name for name in sent)
    assert not launched()
