"""What happens in the field, with real processes: each fault ends in a finished run or in an explained failure.

    make test-slow        (not part of `make test`)

docs/explanation/reliability.md has a row for each test.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import RAW, ROOT, experiment
from safetensors.torch import load_file

from common.split.make import make_shards
from deploy.engines.launch import executable
from deploy.engines.processes import Processes, free_ports, wait_for_port
from deploy.hosts.control import TOKEN_FILE

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(1500)]
SITES = ["a", "b", "c"]
ROUNDS = 4


@dataclass
class Lab:
    """A SuperLink and three SuperNodes on the loopback interface, with TLS and node keys; faults to order."""

    folder: Path
    shards: Path
    processes: Processes
    ports: list[int]
    nodes: int = 0
    superlinks: int = 0
    shard_of: dict[str, Path] = field(default_factory=dict)
    runs: list[subprocess.Popen[str]] = field(default_factory=list)

    def fedmosaic(self, *arguments: str | Path, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        command = [executable("fedmosaic"), *map(str, arguments)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=seconds)

    @property
    def trust(self) -> list[str | Path]:
        ca, token = self.folder / "certs" / "ca.crt", self.folder / "state" / TOKEN_FILE
        return ["--address", f"127.0.0.1:{self.ports[0]}", "--root-certificates", ca, "--operator-token", token]

    def start_superlink(self) -> None:
        where = ["--port", self.ports[0], "--fleet-address", f"127.0.0.1:{self.ports[1]}"]
        told = ["superlink", "--certs", "certs", "--state", "state", *map(str, where)]
        self.superlinks += 1
        self.processes.start(f"superlink-{self.superlinks}", [executable("fedmosaic"), *told], self.folder, remedy=None)
        for port in self.ports[:2]:
            wait_for_port(port, self.processes, 300)

    def start_node(self, site: str, key: str = "", policy: Path | None = None) -> None:
        port = free_ports(1)[0]
        told = ["--superlink", f"127.0.0.1:{self.ports[1]}", "--root-certificates", "certs/ca.crt"]
        told += ["--key", f"certs/{key or site}.key", "--site", site, "--port", str(port)]
        told += ["--policy", str(policy)] if policy else []
        command = [executable("fedmosaic"), "node", "--shard", str(self.shard_of[site]), *told]
        self.nodes += 1
        self.processes.start(f"node-{self.nodes}-{key or site}", command, self.folder, remedy=None)

    def order(self, faults: dict[str, dict[str, str]]) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def config(self, name: str, **federation: Any) -> Path:
        raw = {**RAW, "name": name, "data": {**RAW["data"], "clients": 3}}
        settings = {"rounds": ROUNDS, "wait_seconds": 300, "round_seconds": 100, **federation}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**raw, "federation": settings}))
        return path

    def run(self, name: str, *more: str, **federation: Any) -> subprocess.CompletedProcess[str]:
        return self.fedmosaic("run", self.config(name, **federation), *self.where, *more)

    def start_run(self, name: str, *more: str, **federation: Any) -> subprocess.Popen[str]:
        command = [executable("fedmosaic"), "run", str(self.config(name, **federation)), *map(str, self.where), *more]
        output: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.runs.append(subprocess.Popen(command, cwd=self.folder, **output))
        return self.runs[-1]

    @property
    def where(self) -> list[str | Path]:
        return ["--engine", "superlink", *self.trust, "--test-shard", self.shards / "test"]

    def lines(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / "runs" / name / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for_round(self, name: str, number: int, seconds: float = 600) -> None:
        """Until a round has been saved."""
        deadline = time.monotonic() + seconds
        folder = self.folder / "runs" / name / "checkpoints"
        while not list(folder.glob(f"round-{number:06d}-*")):
            assert time.monotonic() < deadline, f"round {number} of {name} does not come"
            time.sleep(0.1)

    def summary(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "runs" / name / "summary.json").read_text())
        return found

    def model(self, name: str) -> dict[str, torch.Tensor]:
        return load_file(self.folder / "runs" / name / "model.safetensors")

    def kill(self, *words: str) -> None:
        """Kill the processes of this lab whose command line has all of these words."""
        mark = f"FEDMOSAIC_LAUNCH={self.processes.mark}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                ours = mark in (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if ours and all(word in command for word in words):
                found.append(int(entry.name))
        assert found, f"no process with {words}"
        for pid in found:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    make_shards(experiment(data__clients=3), folder / "shards")
    env = {"PYTHONPATH": f"{ROOT / 'tests' / 'faults'}:{ROOT}", "FAULTS": str(folder / "faults.json")}
    processes = Processes(folder / "logs", env)
    made = Lab(folder, folder / "shards", processes, free_ports(2))
    made.shard_of = {site: folder / "shards" / f"client-{index}" for index, site in enumerate(SITES)}
    made.order({})
    try:
        done = made.fedmosaic("certs", "--out", "certs", "--server", "127.0.0.1", "--site", *SITES, "stranger")
        assert done.returncode == 0, done.stderr
        made.start_superlink()
        keys = [f"certs/{site}.pub" for site in SITES]
        done = made.fedmosaic("register", *keys, *made.trust)
        assert done.returncode == 0, done.stderr
        for site in SITES:
            made.start_node(site)
        yield made
    finally:
        for run in made.runs:  # of a test that failed
            with run:
                run.kill()
        processes.stop()


@pytest.fixture(scope="module")
def smooth(lab: Lab) -> dict[str, torch.Tensor]:
    """The model of a run without faults."""
    lab.order({})
    done = lab.run("smooth")
    assert done.returncode == 0, done.stdout + done.stderr
    return lab.model("smooth")


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def spoiled(lab: Lab) -> list[dict[str, Any]]:
    """The lines of a run in which each round has another bad reply."""
    lab.order({"a": {"1": "raise"}, "b": {"2": "nan", "4": "oversized"}, "c": {"3": "shape"}})
    done = lab.run("spoiled", min_replies=2)
    assert done.returncode == 0, done.stdout + done.stderr
    return lab.lines("spoiled")


@pytest.mark.parametrize(
    ("number", "site", "reason"),
    [
        pytest.param(1, "a", "ZeroDivisionError", id="exception"),
        pytest.param(2, "b", "not finite", id="nan"),
        pytest.param(3, "c", "has shape", id="shape"),
        pytest.param(4, "b", "the expected blocks need", id="oversized"),
    ],
)
def test_a_bad_reply_is_left_out_with_site_and_reason(
    number: int, site: str, reason: str, spoiled: list[dict[str, Any]]
) -> None:
    line = spoiled[number]
    assert reason in line["failed"][site]
    assert site not in line["clients"] and len(line["clients"]) >= 2 - (number == 2)


def test_a_killed_client_process_costs_its_round_only(lab: Lab) -> None:
    lab.order({"b": {"1": "client killed"}})
    done = lab.run("client-killed", min_replies=2, round_seconds=40)
    assert done.returncode == 0, done.stdout + done.stderr
    first, *others = lab.lines("client-killed")[1:]
    assert first["failed"]["b"] == "no reply within 40 s"
    assert all(len(line["clients"]) >= 2 for line in others)


def test_a_killed_worker_is_known_at_once_and_replaced(lab: Lab) -> None:
    lab.order({"b": {"2": "worker killed"}})
    done = lab.run("worker-killed", min_replies=2)
    assert done.returncode == 0, done.stdout + done.stderr
    _, _, second, *_ = lab.lines("worker-killed")
    assert "worker process ended while it answered" in second["failed"]["b"]
    lab.order({})
    done = lab.run("worker-replaced", rounds=1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(lab.lines("worker-replaced")[1]["clients"]) == {"a", "b", "c"}


def test_a_straggler_does_not_hold_up_later_rounds(lab: Lab) -> None:
    lab.order({"c": {"1": "slow"}})
    done = lab.run("straggler", min_replies=2, round_seconds=30)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, *_ = lab.lines("straggler")[1:]
    assert first["failed"] == {"c": "no reply within 30 s"}
    assert second["failed"] == {} and set(second["clients"]) == {"a", "b"}
    assert second["seconds"]["total"] < 30


def test_a_killed_supernode_that_is_restarted_with_its_key_goes_on(lab: Lab, smooth: dict[str, torch.Tensor]) -> None:
    lab.order({})
    running = lab.start_run("node-killed", min_replies=3)
    lab.wait_for_round("node-killed", 1)
    lab.kill("flower-supernode", "certs/b.key")
    lab.start_node("b")
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert_same(lab.model("node-killed"), smooth)
    assert lab.summary("node-killed")["missing"] == {}


def test_a_killed_supernode_costs_the_others_nothing(lab: Lab) -> None:
    lab.order({})
    running = lab.start_run("node-lost")
    lab.wait_for_round("node-lost", 1)
    lab.kill("flower-supernode", "certs/b.key")
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 0, said
    assert set(lab.summary("node-lost")["missing"]) == {"b"} and "missing since round" in said
    lab.start_node("b")


def test_a_killed_superlink_is_restarted_and_the_run_resumed(lab: Lab, smooth: dict[str, torch.Tensor]) -> None:
    lab.order({})
    running = lab.start_run("link-killed")
    lab.wait_for_round("link-killed", 2)
    lab.kill("deploy.hosts.control superlink")
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 1
    assert "--resume" in said and "Traceback" not in said
    lab.start_superlink()
    done = lab.run("link-killed", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "after round 2" in done.stdout
    assert_same(lab.model("link-killed"), smooth)


def test_a_killed_serverapp_is_resumed(lab: Lab, smooth: dict[str, torch.Tensor]) -> None:
    lab.order({})
    running = lab.start_run("app-killed")
    lab.wait_for_round("app-killed", 3)
    lab.kill("flwr-serverapp")
    said, _ = running.communicate(timeout=600)
    assert running.returncode == 1
    assert "--resume" in said
    shutil.copytree(lab.folder / "runs" / "app-killed", lab.folder / "runs" / "torn")
    done = lab.run("app-killed", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same(lab.model("app-killed"), smooth)
    assert lab.summary("app-killed")["resumed"] == [3]


def test_a_torn_checkpoint_falls_back_to_the_one_before(lab: Lab, smooth: dict[str, torch.Tensor]) -> None:
    if not (lab.folder / "runs" / "torn").exists():
        pytest.skip("needs the run that test_a_killed_serverapp_is_resumed leaves")
    newest = max((lab.folder / "runs" / "torn" / "checkpoints").glob("round-*"))
    newest.write_bytes(newest.read_bytes()[:1000])
    done = lab.run("torn", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{newest.name} is damaged" in done.stderr
    assert "after round 2" in done.stdout
    assert_same(lab.model("torn"), smooth)


def test_a_full_disk_ends_the_run_and_loses_nothing(lab: Lab, smooth: dict[str, torch.Tensor]) -> None:
    disk = lab.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be made here: {mounted.stderr.strip()}")
    try:
        lab.order({})
        process = lab.start_run("full", "--run-dir", str(disk / "run"))
        deadline = time.monotonic() + 600
        while not list((disk / "run" / "checkpoints").glob("round-000001*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 1, said
        assert "No space left on device" in said and "--resume" in said
        ballast.unlink()
        done = lab.fedmosaic("run", lab.folder / "full.yaml", *lab.where, "--run-dir", disk / "run", "--resume")
        assert done.returncode == 0, done.stdout + done.stderr
        assert_same(load_file(disk / "run" / "model.safetensors"), smooth)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_site_with_corrupt_files_is_counted_and_trains_with_the_rest(lab: Lab) -> None:
    lab.order({})
    shard = lab.shard_of["c"]
    kept = shard.with_name("kept")
    shutil.copytree(shard, kept)
    files = sorted(path for path in shard.glob("*/*") if path.suffix in {".png", ".flac", ".wav"})
    for path in files[:5]:
        path.write_bytes(b"neither sound nor picture")
    (shard / "metadata.jsonl").touch()  # a worker looks at the metadata, not at every file
    try:
        done = lab.run("corrupt", rounds=1)
        assert done.returncode == 0, done.stdout + done.stderr
        assert lab.summary("corrupt")["sites"]["c"]["unreadable"] == 5
        assert re.search(r"c: 5 of \d+ audio values \(\d+%\) cannot be read", done.stdout)
    finally:
        shutil.rmtree(shard)
        kept.rename(shard)


def test_an_unregistered_key_is_refused_at_the_node_and_the_run_goes_on(lab: Lab) -> None:
    lab.order({})
    lab.start_node("a", key="stranger")
    name = f"node-{lab.nodes}-stranger"
    deadline = time.monotonic() + 300
    while "refuses this node's key" not in lab.processes.log(name).read_text():
        assert time.monotonic() < deadline, lab.processes.log(name).read_text()
        time.sleep(0.5)
    done = lab.run("stranger", rounds=1)
    assert done.returncode == 0, done.stdout + done.stderr


def test_of_two_sites_of_one_name_the_one_with_the_registered_key_takes_part(lab: Lab) -> None:
    lab.order({})
    done = lab.fedmosaic("register", "certs/stranger.pub", *lab.trust)
    assert done.returncode == 0, done.stderr
    lab.start_node("a", key="stranger")
    time.sleep(5)
    done = lab.run("twins", rounds=2)
    lab.kill("flower-supernode", "stranger.key")
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(lab.summary("twins")["refused"].values()) == ["this name belongs to another key"]
    assert all(set(line["clients"]) == {"a", "b", "c"} for line in lab.lines("twins")[1:])
