"""What `fedmosaic node`, `superlink` and `register` tell Flower, and which mistakes they answer at once."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flwr.common.config import parse_config_args
from flwr.superlink.cli.flower_superlink import _parse_args_run_superlink
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode, _try_setup_client_authentication
from hypothesis import given
from hypothesis import strategies as st
from test_certs import write_server
from test_cli import call
from test_doctor import serving

from deploy.engines.launch import executable
from deploy.engines.processes import free_ports
from deploy.hosts import start
from deploy.hosts.address import Address
from deploy.hosts.certs import make
from deploy.hosts.clientapp import commands_folder
from deploy.hosts.environment import SETTINGS


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    make(tmp_path / "certs", ["localhost"], ["clinic-a"])
    return tmp_path / "certs"


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Caught instead of a process: the program, what it is told, its environment and its folder."""
    caught: dict[str, Any] = {}

    def execve(program: str, arguments: list[str], env: dict[str, str]) -> None:
        caught.update(program=Path(program).name, told=arguments[1:], env=env, folder=Path.cwd())
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", execve)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(
        "deploy.commands.superlink.start", lambda told, folder: caught.update(superexec=told, at=folder)
    )
    return caught


def node(shard: Path, certs: Path, *more: str | Path) -> list[str | Path]:
    trust = ["--root-certificates", certs / "ca.crt", "--key", certs / "clinic-a.key"]
    return ["node", "--superlink", f"127.0.0.1:{free_ports(1)[0]}", "--shard", shard, *trust, *more]


def test_a_node_is_told_its_shard_site_policy_and_key(
    tiny_shards: Path, certs: Path, tmp_path: Path, became: dict[str, Any], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    policy = tmp_path / "our policy.yaml"
    policy.write_text("{}")
    arguments = node(tiny_shards / "client-0", certs, "--site", 'clinic "a"', "--policy", policy.name, "--port", "9123")
    assert call(*arguments) == 0
    assert became["program"] == "flower-supernode"
    read = _parse_args_run_supernode().parse_args(became["told"])
    assert parse_config_args([read.node_config]) == {
        "shard": str(tiny_shards / "client-0"), "site": 'clinic "a"', "policy": str(policy), "device": "auto",
    }  # fmt: skip
    assert (read.superlink, read.host, read.port, read.insecure) == (arguments[2], "127.0.0.1", 9123, False)
    assert read.isolation == "process"
    secret = Path(read.superexec_auth_secret_file)
    assert secret.stat().st_mode & 0o777 == 0o600 and len(secret.read_bytes()) == 32
    own = became["env"]["FEDMOSAIC_SUPEREXEC"].split("\n")
    assert own == ["--runtime-api-address", "127.0.0.1:9123", "--superexec-auth-secret-file", str(secret), "--insecure"]
    assert read.root_certificates == str(certs / "ca.crt")
    assert _try_setup_client_authentication(read) is not None
    assert became["env"].items() >= SETTINGS.items()
    assert "Connection refused; the node tries again until it answers" in capsys.readouterr().err


def test_only_what_was_given_is_in_the_nodes_settings(tiny_shards: Path, became: dict[str, Any]) -> None:
    assert call("node", "--superlink", "h:9092", "--shard", tiny_shards / "client-0", "--insecure") == 0
    read = _parse_args_run_supernode().parse_args(became["told"])
    assert parse_config_args([read.node_config]) == {"shard": str(tiny_shards / "client-0"), "device": "auto"}
    assert (read.insecure, read.root_certificates, read.auth_supernode_private_key) == (True, None, None)


def test_our_commands_stand_before_flowers_on_a_nodes_path(tiny_shards: Path, became: dict[str, Any]) -> None:
    arguments = ["node", "--superlink", "h:9092", "--shard", tiny_shards / "client-0", "--insecure"]
    beside = str(Path(sys.executable).parent)
    call(*arguments)
    assert became["env"]["PATH"].split(os.pathsep)[:2] == [str(commands_folder()), beside]


@pytest.mark.parametrize(("server", "reason"), [("expired", "expired"), ("foreign", "another CA")])
def test_a_node_ends_when_the_superlink_has_another_certificate_than_it_should(
    server: str, reason: str, tiny_shards: Path, certs: Path, tmp_path: Path
) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=11)
    theirs = write_server(tmp_path / "theirs", now=long_ago if server == "expired" else None)
    if server == "expired":
        shutil.copy(theirs / "ca.crt", certs / "ca.crt")
    with serving(theirs) as address:
        arguments = node(tiny_shards / "client-0", certs)
        arguments[2] = address
        command = [executable("fedmosaic"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    assert reason in done.stderr and "Traceback" not in done.stderr


def test_every_mistake_of_a_node_is_said_at_once(
    certs: Path, tmp_path: Path, became: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (certs / "clinic-a.key").chmod(0o640)
    arguments = node(tmp_path / "no's", certs, "--policy", tmp_path / "absent.yaml", "--port", "0", "--site", "a'b")
    arguments[2] = "fl.example.org"
    assert call(*arguments) == 2
    errors = capsys.readouterr().err
    for expected in (
        "--shard: there is no folder", "'fl.example.org' is not HOST:PORT",
        "--port: 0 is not from 1 to 65535", "--policy: there is no file", "--site: \"a'b\" contains a quotation mark",
        "others can read", "chmod 600",
    ):  # fmt: skip
        assert expected in errors
    assert not became


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["--root-certificates FILE is needed", "--key FILE is needed"]),
        (["--insecure", "--key", "k", "--root-certificates", "c"], ["excludes --key", "excludes --root-certificates"]),
        (["--key", "garbage", "--root-certificates", "absent"], ["not a private key in OpenSSH", "there is no file"]),
        (["--key", "certs/ca.key", "--root-certificates", "certs/ca.crt"], ["is not a private key in OpenSSH format"]),
    ],
)
def test_no_node_without_tls_and_key_unless_it_is_asked_for(
    arguments: list[str], expected: list[str], tiny_shards: Path, certs: Path, tmp_path: Path,
    became: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage").write_text("no key")
    (tmp_path / "garbage").chmod(0o600)
    assert call("node", "--superlink", "h:9092", "--shard", tiny_shards / "client-0", *arguments) == 2
    errors = capsys.readouterr().err
    assert all(text in errors for text in expected), errors
    assert not became


def test_a_superlink_has_tls_keys_and_a_database(certs: Path, tmp_path: Path, became: dict[str, Any]) -> None:
    here = Path.cwd()
    try:
        assert call("superlink", "--certs", certs, "--state", tmp_path / "state") == 0
    finally:
        os.chdir(here)
    assert became["told"][:4] == ["-P", "-m", "deploy.hosts.control", "superlink"]
    read = _parse_args_run_superlink().parse_args(became["told"][4:])
    token = tmp_path / "state" / "operator.token"
    assert became["env"]["FEDMOSAIC_OPERATOR_TOKEN"] == str(token) and token.stat().st_mode & 0o777 == 0o600
    assert (read.ssl_ca_certfile, read.ssl_certfile, read.ssl_keyfile) == tuple(
        str(certs / name) for name in ("ca.crt", "server.crt", "server.key")
    )
    assert (read.enable_supernode_auth, read.insecure, read.runtime_dependency_install) == (True, False, False)
    assert (read.host, read.port, read.fleet_api_address) == ("127.0.0.1", 8000, "0.0.0.0:9092")
    assert read.database == str(tmp_path / "state" / "state.db")
    secret = tmp_path / "state" / "superexec.secret"
    assert (read.isolation, read.superexec_auth_secret_file) == ("process", str(secret))
    assert secret.stat().st_mode & 0o777 == 0o600
    assert became["superexec"][:2] == ["--runtime-api-address", "127.0.0.1:8000"]
    assert became["superexec"][4:] == ["--root-certificates", str(certs / "ca.crt")]
    assert became["at"] == tmp_path / "state"
    assert became["folder"] == tmp_path / "state"  # where ServerApps write runs/
    assert became["env"]["FLWR_HOME"] == os.environ.get("FLWR_HOME", str(tmp_path / "state" / "flower"))
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_every_mistake_of_a_superlink_is_said_at_once(
    certs: Path, tmp_path: Path, became: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (certs / "server.crt").unlink()
    (certs / "server.key").chmod(0o644)
    state = tmp_path / "state"
    state.write_text("")
    assert call("superlink", "--certs", certs, "--state", state, "--port", "70000", "--fleet-address", "9092") == 2
    errors = capsys.readouterr().err
    assert "5 mistakes" in errors
    for expected in (
        "there is no file", "chmod 600", "70000 is not from 1 to 65535", "--fleet-address: '9092'", "is not a folder",
    ):  # fmt: skip
        assert expected in errors
    for arguments in (["--insecure", "--certs", str(certs)], []):
        assert call("superlink", "--state", tmp_path / "new", *arguments) == 2
        assert "or --insecure for no encryption" in capsys.readouterr().err
    assert not became


def test_every_mistake_of_a_registration_is_said_at_once(
    certs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [certs / "clinic-a.pub", certs / "clinic-a.pub", certs / "clinic-a.key", tmp_path / "absent.pub"]
    assert call("register", *keys, "--address", "nowhere", "--root-certificates", certs / "absent.crt") == 2
    errors = capsys.readouterr().err
    for expected in (
        "'nowhere' is not HOST:PORT", "there is no file", "clinic-a: two files have this name", "is not a public key",
    ):  # fmt: skip
        assert expected in errors
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    assert call("register", keys[0], "--address", nobody, "--root-certificates", certs / "ca.crt") == 1
    assert "Connection refused; is the SuperLink running" in capsys.readouterr().err


def test_a_signal_reaches_what_the_command_became_and_its_status_comes_back(tmp_path: Path) -> None:
    program = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(42)); print('ready', flush=True); "
    program += "time.sleep(600)"
    code = (
        "import os, sys; from deploy.hosts.start import become; from deploy.hosts.explain import explain_what_follows; "
        f"explain_what_follows(); become([sys.executable, '-c', {program!r}], os.environ)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.stdout.read() == ""  # the filter has ended as well
        assert process.wait(timeout=200) == 42


def test_flowers_code_for_a_refused_key_is_explained() -> None:
    lines = "before\n\x1b[91m[code: 2004] Failed to activate SuperNode.\nafter\n"
    done = subprocess.run(
        [sys.executable, "-m", "deploy.hosts.explain"], input=lines, capture_output=True, text=True, check=True
    )
    first, second, reason, last = done.stdout.splitlines()
    assert (first, second, last) == tuple(lines.splitlines())
    assert "not registered" in reason and "fedmosaic register" in reason


@given(host=st.from_regex(r"[a-z0-9.-]{1,30}|\[[0-9a-f:]{2,20}\]", fullmatch=True), port=st.integers(1, 65535))
def test_addresses_are_read_as_they_are_written(host: str, port: int) -> None:
    assert Address.parse(f"{host}:{port}") == (host.strip("[]"), port)


@pytest.mark.parametrize("text", ["", "h", "h:", ":1", "h:0", "h:65536", "h:-1", "h:x", "h:1 ", "h:²", "[]:1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        Address.parse(text)


def test_private_files(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert "there is no file" in start.private_file("--key", path)[0]
    path.write_text("")
    for mode, fine in ((0o600, True), (0o400, True), (0o604, False), (0o640, False)):
        path.chmod(mode)
        assert bool(start.private_file("--key", path)) != fine
