"""Containers that are built and run: the demo of deploy/hosts/compose.yaml; server and sites on their own networks.

    make test-containers        (as root, with Debian's buildah, podman, runc, catatonit, debootstrap, iptables)

FEDMOSAIC_CONTAINERS names a folder where images are kept for the next time; without it everything is taken away.
"""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from containers import IMAGE, Project, Store, limits, why_not
from test_cli import call

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3600)]
SITES = ("north", "south")
RUN = [
    "fedmosaic",
    "run",
    "configs/experiment.yaml",
    "--engine",
    "superlink",
    "--address",
    "superlink:8000",
    "--root-certificates",
    "/srv/certs/ca.crt",
    "--test-shard",
    "/srv/data/test",
    "--run-dir",
    "/srv/runs/one",
]
ROUNDS = 60
"""So many that the run goes on while containers are killed and come back, and when the SuperLink is restarted."""
NODE_BACK_SECONDS = 200
"""A SuperLink lets a killed node's key in again after a minute; podman starts it again and again until then."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """The project's image, built anew unless it is kept."""
    if reason := why_not():
        pytest.skip(reason)
    kept = os.environ.get("FEDMOSAIC_CONTAINERS")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("containers")
    folder.mkdir(exist_ok=True)
    made = Store(folder)
    with timed("base image"):
        if not made.has("docker.io/library/python:3.11-slim"):
            made.make_base()
    with timed("image"):
        made.build(ROOT)
    yield made
    if not kept:
        made.podman("system", "reset", "--force", check=False)
        shutil.rmtree(folder, ignore_errors=True)


class timed:  # noqa: N801 - reads as a verb
    """Says how long a step took."""

    def __init__(self, step: str) -> None:
        self.step = step

    def __enter__(self) -> None:
        self.started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        print(f"{self.step}: {time.monotonic() - self.started:.0f} s", flush=True)


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def test_the_image_has_no_more_than_it_needs(store: Store) -> None:
    about = json.loads(store.podman("image", "inspect", IMAGE).stdout)[0]
    assert about["Config"]["User"] == "10001:10001"
    alone = ["run", "--rm", "--read-only", "--network=none", *limits(), IMAGE]
    assert "Multimodal federated learning" in store.podman(*alone, "fedmosaic", "--help").stdout
    assert "Traceback" not in store.podman(*alone, "fedmosaic", "doctor", check=False).stderr


def test_the_demo_on_one_host(store: Store) -> None:
    demo = Project(store, ROOT / "deploy" / "hosts" / "compose.yaml", ROOT, {}, "demo")
    try:
        demo.make_networks()
        with timed("compose.yaml up"):
            demo.up()
        with timed("demo"):
            said = demo.run("demo")
        assert "audio+image" in said or "finished" in said, said
        assert not any(site in said for site in ("refused", "missing site"))
    finally:
        demo.down()


@pytest.fixture
def federation(store: Store, tmp_path: Path) -> Iterator[tuple[Project, dict[str, Project]]]:
    """A server and two sites, each from its own files, joined by one network only."""
    server_folder = tmp_path / "server"
    certs = tmp_path / "certs"
    assert call("certs", "--out", certs, "--server", "superlink", "--site", *SITES) == 0
    for name in ("certs", "keys", "state", "runs", "data", "models", "configs"):
        (server_folder / name).mkdir(parents=True)
    for name in ("ca.crt", "server.crt", "server.key", "superexec.secret"):
        shutil.copy(certs / name, server_folder / "certs")
    chosen = experiment(len(SITES))
    (server_folder / "configs" / "experiment.yaml").write_text(yaml.safe_dump(chosen))
    assert call("shard", server_folder / "configs" / "experiment.yaml", "--out", tmp_path / "shards") == 0
    shutil.copytree(tmp_path / "shards" / "test", server_folder / "data" / "test")
    sites = {}
    for index, site in enumerate(SITES):
        shutil.copy(certs / f"{site}.pub", server_folder / "keys")
        sites[site] = make_site(store, tmp_path, site, index, certs)
    owned(tmp_path)
    variables = {"HOST_USER": "10001:10001"}
    server = Project(store, ROOT / "deploy" / "hosts" / "compose.server.yaml", server_folder, variables, "server")
    try:
        server.make_networks()
        for project in sites.values():
            project.make_networks()
        yield server, sites
    finally:
        for project in (*sites.values(), server):
            project.down()


def experiment(clients: int) -> dict[str, Any]:
    """Rounds enough for something to happen in between."""
    chosen: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "digits-mini-fedcmi.yaml").read_text())
    chosen["data"]["clients"] = clients
    chosen["federation"] = {"rounds": ROUNDS, "wait_seconds": 400}
    chosen["train"]["epochs"] = 4
    return chosen


def make_site(store: Store, folder: Path, site: str, index: int, certs: Path) -> Project:
    own = folder / site
    for name in ("certs", "site", "models"):
        (own / name).mkdir(parents=True)
    shutil.copy(certs / "ca.crt", own / "certs")
    shutil.copy(certs / f"{site}.key", own / "certs")
    shutil.copy(ROOT / "deploy" / "hosts" / "site.yaml", own / "site")
    (own / "certs" / "superexec.secret").write_bytes(os.urandom(32))
    shutil.copytree(folder / "shards" / f"client-{index}", own / "shard")
    variables = {"HOST_USER": "10001:10001", "SITE": site, "SUPERLINK": "superlink:9092"}
    joined = {"outside": "server-default"}  # the networks between hosts
    return Project(store, ROOT / "deploy" / "hosts" / "compose.client.yaml", own, variables, site, joined)


def owned(folder: Path) -> None:
    """All of it belongs to the user that the containers run as; keys are its own."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 10001, 10001)
    folder.chmod(0o755)
    folder.parent.chmod(0o755)


def rounds_of(run: Path) -> int:
    lines = run / "metrics.jsonl"
    return len(lines.read_text().splitlines()) - 1 if lines.exists() else -1


def test_server_and_sites_survive_what_happens(federation: tuple[Project, dict[str, Project]]) -> None:
    server, sites = federation
    with timed("server up"):
        server.up()
        register = ["fedmosaic", "register", *(f"/srv/keys/{site}.pub" for site in SITES)]
        server.run("operator", *register, "--address", "superlink:8000", "--root-certificates", "/srv/certs/ca.crt")
    with timed("sites up"):
        for project in sites.values():
            project.up()
    run = server.folder / "runs" / "one"
    north, south = (sites[site] for site in SITES)
    with timed("run with a killed SuperNode and killed ClientApps"):
        server.submit("operator", *RUN)
        wait_until(lambda: rounds_of(run) >= 2, 300, server.log("serverapps"))
        before = north.state("supernode")["State"]["Pid"]
        north.kill("supernode")
        south.kill("clientapps")
        wait_until(lambda: south.state("clientapps")["State"]["Running"], NODE_BACK_SECONDS, south.log("clientapps"))
        is_back = lambda: north.state("supernode")["State"]["Pid"] not in (0, before)  # noqa: E731
        wait_until(is_back, NODE_BACK_SECONDS, north.log("supernode"))
        done = rounds_of(run)
        wait_until(lambda: rounds_of(run) >= done + 1, 400, server.log("serverapps"))
    with timed("SuperLink restarted, run resumed"):
        # Both: a ServerApp that outlives its SuperLink waits for replies that are lost.
        for name in ("superlink", "serverapps"):
            server.store.podman("restart", "--time", "60", server.container(name))
        server.wait("superlink", "service_healthy")
        server.run("operator", *RUN, "--resume")
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("completed", ROUNDS)
    assert summary["resumed"] and set(summary["sites"]) == set(SITES)
    assert summary["scores"]["audio+image"] > 0.5
