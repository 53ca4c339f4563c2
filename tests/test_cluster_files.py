"""The files for Kubernetes and Slurm: their commands are accepted by the programs they start, and what belongs together
has the same name. No cluster runs them here: a script takes the place of Slurm's `srun`."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from flwr.common.config import parse_config_args
from test_deploy_files import parsed

from client.policy import read_policy
from common.hardware.computing import Hardware

CLUSTERS = ROOT / "deploy" / "hosts"
SLURM = sorted((CLUSTERS / "slurm").glob("*.sbatch"))
PARTS = {file: list(yaml.safe_load_all((CLUSTERS / "kubernetes" / file).read_text()))
         for file in ("superlink.yaml", "site.yaml")}  # fmt: skip
PAGE = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()


def part(file: str, kind: str) -> dict[str, Any]:
    """The only part of a file of this kind."""
    (found,) = [one for one in PARTS[file] if one["kind"] == kind]
    return dict(found)


def pod(file: str) -> dict[str, Any]:
    """The description of a file's pods."""
    return dict(part(file, "Deployment")["spec"]["template"]["spec"])


CONTAINERS = {f"{file}: {one['name']}": (file, one) for file in PARTS for one in pod(file)["containers"]}
EACH = pytest.mark.parametrize(("file", "container"), CONTAINERS.values(), ids=CONTAINERS)


class TestKubernetes:
    @EACH
    def test_every_command_is_accepted_by_its_program(self, file: str, container: dict[str, Any]) -> None:
        read = parsed(container["command"])
        probes = [container[name] for name in ("livenessProbe", "readinessProbe") if name in container]
        for probe in probes:
            assert probe["exec"]["command"] == ["python", "-m", "deploy.hosts.health", read.health_server_address]
        assert probes

    @EACH
    def test_every_container_is_confined(self, file: str, container: dict[str, Any]) -> None:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert pod(file)["securityContext"]["runAsNonRoot"] and not pod(file)["automountServiceAccountToken"]
        assert pod(file)["securityContext"]["fsGroup"] == pod(file)["securityContext"]["runAsUser"] == 10001
        assert "hostNetwork" not in pod(file) and "shareProcessNamespace" not in pod(file)

    @EACH
    def test_every_path_of_a_command_is_mounted(self, file: str, container: dict[str, Any]) -> None:
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert {"/tmp", "/home/fedmosaic"} <= mounted.keys()  # the root file system is read-only
        assert set(mounted.values()) <= {volume["name"] for volume in pod(file)["volumes"]}
        command = " ".join(word for word in container["command"] if not word.startswith("--node-config"))
        for path in re.findall(r"/srv/[\w./-]+", command):
            assert any(path.startswith(f"{target}/") for target in mounted), path

    @pytest.mark.parametrize("file", PARTS)
    def test_the_parts_of_a_file_have_the_same_names(self, file: str) -> None:
        deployment = part(file, "Deployment")
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels
        assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
        claims = [one["persistentVolumeClaim"]["claimName"] for one in pod(file)["volumes"]
                  if "persistentVolumeClaim" in one]  # fmt: skip
        assert claims == [part(file, "PersistentVolumeClaim")["metadata"]["name"]]
        images = {one["image"] for name, one in CONTAINERS.values()}
        assert len(images) == 1  # all hosts run the same release

    def test_the_service_reaches_the_port_for_nodes_only(self) -> None:
        service = part("superlink.yaml", "Service")["spec"]
        assert service["selector"] == part("superlink.yaml", "Deployment")["spec"]["template"]["metadata"]["labels"]
        superlink = parsed(CONTAINERS["superlink.yaml: superlink"][1]["command"])
        assert superlink.fleet_api_address == f"0.0.0.0:{service['ports'][0]['port']}" and len(service["ports"]) == 1
        assert superlink.host == "127.0.0.1" and superlink.enable_supernode_auth

    def test_the_key_and_the_data_of_a_site_are_in_different_containers_and_one_gets_the_gpu(self) -> None:
        node, work = (CONTAINERS[f"site.yaml: {name}"][1] for name in ("supernode", "clientapps"))
        read = parsed(node["command"])
        settings = parse_config_args([read.node_config])
        targets = {mount["mountPath"]: mount for mount in work["volumeMounts"]}
        assert {settings["shard"], settings["policy"]} <= targets.keys()
        assert targets[str(settings["policy"])]["readOnly"]
        assert not any("shard" in mount["mountPath"] for mount in node["volumeMounts"])
        assert work["resources"]["limits"]["nvidia.com/gpu"] == 1 and "gpu" not in str(node["resources"])
        assert Hardware.of_node(settings).device == "cuda"
        for container in (node, work):
            (path,) = [one["value"] for one in container["env"] if one["name"] == "PATH"]
            assert path.split(":")[:2] == ["/opt/venv/site-bin", "/opt/venv/bin"]
        assert parsed(work["command"]).runtime_api_address == f"127.0.0.1:{read.port}"

    def test_a_site_accepts_no_connection(self) -> None:
        policy = part("site.yaml", "NetworkPolicy")["spec"]
        assert policy["podSelector"]["matchLabels"] == part("site.yaml", "Deployment")["metadata"]["labels"]
        assert policy["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in policy
        assert {port["port"] for rule in policy["egress"] for port in rule["ports"]} == {9092, 53}

    def test_the_policy_of_the_site_is_a_policy(self, tmp_path: Path) -> None:
        (tmp_path / "site.yaml").write_text(part("site.yaml", "ConfigMap")["data"]["site.yaml"])
        assert read_policy(tmp_path / "site.yaml").gpu

    @pytest.mark.parametrize("file", PARTS)
    def test_the_page_makes_the_secrets_with_every_file_that_is_used(self, file: str) -> None:
        page = PAGE.replace("\\\n", " ")
        secrets = {volume["secret"]["secretName"] for volume in pod(file)["volumes"] if "secret" in volume}
        for secret in secrets:
            (made,) = re.findall(rf"^kubectl create secret generic {secret} (.*)$", page, re.M)
            names = {word.split("=")[1].rpartition("/")[2] for word in made.split()}
            mounts = {
                volume["name"]
                for volume in pod(file)["volumes"]
                if volume.get("secret", {}).get("secretName") == secret
            }
            for _, container in (one for one in CONTAINERS.values() if one[0] == file):
                assert mounts & {mount["name"] for mount in container["volumeMounts"]}
                used = set(re.findall(r"/srv/certs/([\w.]+)", " ".join(container["command"])))
                assert used <= names, used - names


SITES = ["clinic-a", "clinic-b"]
SRUN = f"""#!{sys.executable}
import os, sys
assert os.environ["SRUN_CPUS_PER_TASK"] == "8"
os.execvp(sys.argv[1], sys.argv[1:])
"""
FEDMOSAIC = """#!/bin/sh
echo "$@" >> calls
test ! -e fail-$1 || { rm fail-$1; exit 1; }
test $1 != superlink || exec sleep 60
"""


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job in a folder with two commands: `srun` runs a command, `fedmosaic` writes down its
    arguments."""
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("fedmosaic", FEDMOSAIC)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "temporary").mkdir()
    (tmp_path / "sites.txt").write_text("\n".join(SITES) + "\n")
    return {
        "PATH": f"{tmp_path / 'bin'}:{os.defpath}", "TMPDIR": str(tmp_path / "temporary"),
        "SLURM_ARRAY_TASK_ID": "2", "SLURM_JOB_ID": "4711", "SLURM_CPUS_PER_TASK": "8",
        "SUPERLINK": "fl.example.org:9092",
    }  # fmt: skip


def run(script: str, env: dict[str, str], folder: Path, *arguments: str) -> int:
    """The exit status of a script of Slurm in a folder."""
    command = ["bash", str(CLUSTERS / "slurm" / script), *arguments]
    return subprocess.run(command, cwd=folder, env=env, timeout=60).returncode


def calls(folder: Path) -> Iterator[list[str]]:
    """The arguments of the calls of `fedmosaic`."""
    return (shlex.split(line) for line in (folder / "calls").read_text().splitlines())


class TestSlurm:
    @pytest.mark.parametrize("script", SLURM, ids=lambda path: path.name)
    def test_bash_accepts_a_script_and_its_options_come_first(self, script: Path) -> None:
        assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
        lines = script.read_text().splitlines()
        first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
        assert not any(line.startswith("#SBATCH") for line in lines[first:])  # sbatch would not read them
        assert any(line.startswith("#SBATCH --time=") for line in lines[:first])

    def test_a_node_trains_on_its_gpu_after_a_check(self, job: dict[str, str], tmp_path: Path) -> None:
        assert run("sites.sbatch", job, tmp_path) == 0
        check, node = (parsed(["fedmosaic", *arguments]) for arguments in calls(tmp_path))
        for read in (check, node):
            assert (str(read.shard), str(read.key)) == ("shards/clinic-b", "keys/clinic-b.key")
            assert (str(read.policy), str(read.root_certificates)) == ("policies/clinic-b.yaml", "ca.crt")
            assert read.device == "cuda"
        assert (node.superlink, node.site, node.port, node.threads) == ("fl.example.org:9092", "clinic-b", 24711, 8)
        assert not list((tmp_path / "temporary").iterdir())

    def test_a_node_does_not_start_when_the_check_fails(self, job: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "fail-doctor").touch()
        assert run("sites.sbatch", job, tmp_path) == 1
        assert [arguments[0] for arguments in calls(tmp_path)] == ["doctor"]
        assert "--gres=gpu:1\n" in (CLUSTERS / "slurm" / "sites.sbatch").read_text()

    def test_the_server_registers_the_keys_runs_and_ends(self, job: dict[str, str], tmp_path: Path) -> None:
        (tmp_path / "keys").mkdir()
        for site in SITES:
            (tmp_path / "keys" / f"{site}.pub").touch()
        (tmp_path / "fail-register").touch()  # the SuperLink does not answer yet
        assert run("server.sbatch", job, tmp_path, "experiment.yaml", "--resume") == 0
        found = list(calls(tmp_path))
        assert sorted(arguments[0] for arguments in found) == ["register", "register", "run", "superlink"]
        link = [parsed(["fedmosaic", *arguments]) for arguments in found]
        (run_,) = [read for read, arguments in zip(link, found, strict=True) if arguments[0] == "run"]
        assert (run_.engine, run_.resume, str(run_.config)) == ("superlink", True, "experiment.yaml")
        (superlink,) = [read for read, arguments in zip(link, found, strict=True) if arguments[0] == "superlink"]
        assert run_.operator_token.parent == superlink.state
        assert not list((tmp_path / "temporary").iterdir())

    def test_the_server_ends_with_its_superlink_and_with_the_status_of_the_run(
        self, job: dict[str, str], tmp_path: Path
    ) -> None:
        (tmp_path / "keys").mkdir()
        (tmp_path / "fail-run").touch()
        assert run("server.sbatch", job, tmp_path, "experiment.yaml") == 1
        for name in ("superlink", "register"):
            (tmp_path / f"fail-{name}").touch()
        assert run("server.sbatch", job, tmp_path, "experiment.yaml") != 0
