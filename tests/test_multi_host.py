"""A server and three sites as hosts: network namespaces, TLS, node keys, the commands of docs/how-to/deploy.md."""

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from compose import Service, services
from conftest import RAW, ROOT, experiment
from hosts import Host, network, why_not

from common.split.make import make_shards
from deploy.engines.launch import executable
from deploy.engines.processes import Processes
from deploy.hosts.clientapp import commands_folder
from deploy.hosts.control import TOKEN_FILE

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]
SITES = ["clinic-0", "clinic-1", "clinic-2"]
NAME = "fl.test"
"""Of the server, in the sites' /etc/hosts."""


def prepare(server: Host, sites: list[Host], shards: Path) -> None:
    """Each site's shard, the server's test shard and experiment, and the keys that the operator makes and hands out."""
    make_shards(experiment(data__clients=3), shards)
    shutil.copytree(shards / "test", server.folder / "data" / "test")
    patient = {**RAW["federation"], "wait_seconds": 600}
    raw = {**RAW, "data": {**RAW["data"], "clients": 3}, "federation": patient}
    (server.folder / "tiny.yaml").write_text(yaml.safe_dump(raw))
    wanted = ["--server", NAME, server.address, "--site", *SITES]
    status, said = server.run(executable("fedmosaic"), "certs", "--out", "certs", *wanted)
    assert status == 0, said
    for index, site in enumerate(sites):
        shutil.copytree(shards / f"client-{index}", site.folder / "shard")
        (site.folder / "certs").mkdir(mode=0o700)
        for file in ("ca.crt", f"{SITES[index]}.key"):
            shutil.copy(server.folder / "certs" / file, site.folder / "certs" / file)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Whatever is started, stopped at the end."""
    started = Processes(tmp_path / "logs", {"PYTHONPATH": str(ROOT)})
    yield started
    started.stop()


def trust_of(server: Host) -> list[str]:
    """What an operator on the server's host shows and asks for. The SuperLink of the compose files has no token: only
    the containers of its network reach it."""
    token = server.folder / "state" / TOKEN_FILE
    return ["--root-certificates", "certs/ca.crt", *(["--operator-token", str(token)] if token.exists() else [])]


def register(server: Host, *names: str, address: str) -> str:
    keys = [f"certs/{name}.pub" for name in names]
    trust = ["--address", address, *trust_of(server)]
    status, said = server.run(executable("fedmosaic"), "register", *keys, *trust)
    assert status == 0, said
    return said


def node(index: int, *more: str) -> list[str]:
    trust = ["--root-certificates", "certs/ca.crt", "--key", f"certs/{SITES[index]}.key"]
    place = ["--superlink", f"{NAME}:9092", "--shard", "shard", "--site", SITES[index]]
    return [executable("fedmosaic"), "node", *place, *trust, *more]


def run(server: Host, address: str, *more: str) -> str:
    trust = ["--engine", "superlink", "--address", address, *trust_of(server)]
    status, said = server.run(executable("fedmosaic"), "run", "tiny.yaml", *trust, *more)
    assert status == 0, said
    return said


def check_results(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["rounds"]) == ("completed", 2)
    assert set(summary["sites"]) == set(SITES)
    assert summary["scores"].keys() == {"audio", "image", "audio+image"}


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """The server's host, then the sites'."""
    with network(4, tmp_path) as made:
        server, *sites = made
        for site in sites:
            site.names({NAME: server.address})
        prepare(server, sites, tmp_path / "shards")
        yield made


def test_a_federation_of_four_hosts_trains_over_tls_with_node_keys(hosts: list[Host], processes: Processes) -> None:
    server, *sites = hosts
    server.start(processes, "superlink", executable("fedmosaic"), "superlink", "--certs", "certs", "--state", "state")
    server.wait_for(processes, 9092)
    server.wait_for(processes, 8000)

    status, said = sites[0].run(*node(0))
    assert status == 1
    assert "the SuperLink refuses this node's key. Either the key is not registered there" in said

    assert register(server, *SITES, address="127.0.0.1:8000").count(": registered") == 3
    assert "this key is registered already" in register(server, SITES[0], address="127.0.0.1:8000")
    for index, site in enumerate(sites):
        site.start(processes, SITES[index], *node(index))
    run(server, "127.0.0.1:8000", "--test-shard", "data/test")
    check_results(server.folder / "runs" / "tiny")
    peers = {line.split()[-1].rpartition(":")[0] for line in server.sockets("state", "established", "sport = :9092")}
    assert {peer.removeprefix("[::ffff:").removesuffix("]") for peer in peers} == {site.address for site in sites}
    for name in SITES:
        assert re.findall(r"round (.) of 2: .*?\d+ examples", processes.log(name).read_text()) == ["1", "2"]

    where = ["--superlink", f"{NAME}:9092", "--root-certificates", "certs/ca.crt", "--shard", "shard"]
    status, said = sites[1].run(executable("fedmosaic"), "doctor", *where, "--key", f"certs/{SITES[1]}.key")
    assert status == 0, said
    assert f"{NAME}:9092 proved its name, TLSv1.3" in said
    status, said = sites[1].run(executable("fedmosaic"), "doctor", "--address", f"{NAME}:8000")
    assert status == 1  # the control API is for operators on the server only
    assert f"{NAME}:8000: Connection refused" in said


def test_a_network_that_is_cut_and_heals_costs_time_only(hosts: list[Host], processes: Processes) -> None:
    server, *sites = hosts
    server.start(processes, "superlink", executable("fedmosaic"), "superlink", "--certs", "certs", "--state", "state")
    server.wait_for(processes, 9092)
    server.wait_for(processes, 8000)
    register(server, *SITES, address="127.0.0.1:8000")
    for index, site in enumerate(sites):
        site.start(processes, SITES[index], *node(index))
    trust = ["--engine", "superlink", "--address", "127.0.0.1:8000", *trust_of(server)]
    patient = [
        "--set",
        "federation.rounds=4",
        "--set",
        "federation.round_seconds=45",
        "--set",
        "federation.wait_seconds=600",
        "--set",
        "federation.min_replies=3",
    ]
    processes.start(
        "run",
        server.inside([executable("fedmosaic"), "run", "tiny.yaml", *trust, *patient]),
        server.folder,
        remedy=None,
    )
    lines = server.folder / "runs" / "tiny" / "metrics.jsonl"
    wait_until(lambda: lines.exists() and len(lines.read_text().splitlines()) >= 2, 600)
    sites[1].cut()
    time.sleep(50)
    sites[1].heal()
    summary = server.folder / "runs" / "tiny" / "summary.json"
    wait_until(summary.exists, 900)
    ended = json.loads(summary.read_text())
    assert (ended["status"], ended["rounds"], ended["missing"]) == ("completed", 4, {}), ended
    rounds = [json.loads(line) for line in lines.read_text().splitlines()][1:]
    assert all(set(line["clients"]) == set(SITES) for line in rounds)
    assert max(line["attempts"] for line in rounds) > 1


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def start(service: Service, host: Host, processes: Processes, name: str) -> None:
    """A service of a compose file on a host: its command sees its volumes, below /srv, and the image's programs."""
    script = ["set -eu", "mount -t tmpfs tmpfs /srv", "mount -t tmpfs tmpfs /opt", "mkdir /opt/venv"]
    script += [f"ln -s {entry} /opt/venv/" for entry in Path(sys.prefix).iterdir()]
    script += [f"ln -s {commands_folder()} /opt/venv/site-bin", "cd /srv"]
    for volume in service.volumes:
        source = host.folder / volume.source
        make = f"mkdir -p {volume.target}" if source.is_dir() else f"install -D /dev/null {volume.target}"
        script += [make if not volume.within(service.volumes) else ":", f"mount --bind {source} {volume.target}"]
        script += [f"mount -o remount,bind,ro {volume.target}"] if volume.read_only else []
    (path,) = re.findall(r"^ENV PATH=(\S+)", (ROOT / "deploy" / "hosts" / "Dockerfile").read_text(), re.MULTILINE)
    variables = [f"{key}={value}" for key, value in {"PATH": path, **service.environment}.items()]
    script.append('exec env "$@"')
    host.start(processes, name, "sh", "-c", "\n".join(script), "sh", *variables, *service.command)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[list[Host]]:
    """Superlink and serverapps, then for each site supernode and clientapps; the folder of the second of a pair is not
    used, as the containers of a host share the host's."""
    with network(8, tmp_path) as made:
        superlink, *_ = made
        for front, back in zip(made[::2], made[1::2], strict=True):
            names = {NAME: superlink.address, "superlink": superlink.address, "supernode": front.address}
            front.names(names)
            back.names(names)
        prepare(superlink, made[2::2], tmp_path / "shards")
        yield [replace(one, folder=made[index // 2 * 2].folder) for index, one in enumerate(made)]


def test_the_services_of_the_compose_files_make_a_federation(containers: list[Host], processes: Processes) -> None:
    superlink, serverapps, *sites = containers
    for folder in ("state", "runs", "models"):
        (superlink.folder / folder).mkdir()
    on_server = services(ROOT / "deploy" / "hosts" / "compose.server.yaml", {"HOST_USER": "0:0"})
    start(on_server["superlink"], superlink, processes, "superlink")
    superlink.wait_for(processes, 9092)
    superlink.wait_for(processes, 8000)
    start(on_server["serverapps"], serverapps, processes, "serverapps")
    register(superlink, *SITES, address="superlink:8000")
    for name, supernode, clientapps in zip(SITES, sites[::2], sites[1::2], strict=True):
        for folder in ("site", "models"):
            (supernode.folder / folder).mkdir()
        (supernode.folder / "site" / "site.yaml").write_text("{}\n")
        (supernode.folder / "certs" / "superexec.secret").write_bytes(b"between the two of " + name.encode())
        variables = {"HOST_USER": "0:0", "SITE": name, "SUPERLINK": f"{NAME}:9092"}
        at_site = services(ROOT / "deploy" / "hosts" / "compose.client.yaml", variables)
        start(at_site["supernode"], supernode, processes, f"supernode-{name}")
        supernode.wait_for(processes, 9099)
        start(at_site["clientapps"], clientapps, processes, f"clientapps-{name}")
    healthy = [sys.executable, "-m", "deploy.hosts.health", "127.0.0.1:9099"]
    run(superlink, "superlink:8000", "--test-shard", "/srv/data/test")
    check_results(superlink.folder / "runs" / "tiny")
    assert [one.run(*healthy)[0] for one in (superlink, serverapps, *sites[:2])] == [0] * 4
    processes.check()
