"""Other users of a site's host: they see no token, and the port of a node gives them nothing."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from conftest import ROOT
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient

from deploy.engines.launch import executable
from deploy.engines.processes import Processes, free_ports
from deploy.hosts.superexec import isolated, launch

SHOW = "import sys; i = sys.argv.index('--token-file'); print(open(sys.argv[i + 1]).read(), sys.argv)"


def test_the_token_of_a_task_is_in_no_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as file:
        process = launch([sys.executable, "-c", SHOW, "--token", "very-secret", "--insecure"], stdout=file)
        seen = Path(f"/proc/{process.pid}/cmdline").read_bytes() if Path("/proc/self").exists() else b""
        assert process.wait(60) == 0
    token, arguments = out.read_text().split(" ", 1)
    assert token == "very-secret" and "very-secret" not in arguments and b"very-secret" not in seen
    assert "--insecure" in arguments


def test_a_secret_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    secret = tmp_path / "s"
    isolated("127.0.0.1:1", secret, ["--insecure"])
    content = secret.read_bytes()
    isolated("127.0.0.1:1", secret, ["--insecure"])
    assert secret.read_bytes() == content and secret.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def node(tiny_shards: Path, tmp_path: Path) -> Iterator[int]:
    """The port of a node whose SuperLink does not answer."""
    port, nowhere = free_ports(2)
    processes = Processes(tmp_path / "logs", {"PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(tmp_path)})
    shard = str(tiny_shards / "client-0")
    told = ["node", "--insecure", "--superlink", f"127.0.0.1:{nowhere}", "--shard", shard, "--port", str(port)]
    try:
        processes.start("node", [executable("fedmosaic"), *told], tmp_path, remedy=None)
        yield port
    finally:
        processes.stop()


def acquire(port: int, secret: bytes | None) -> None:
    """Ask a node's port for a task, as a SuperExec does.

    Raises httpx.HTTPStatusError when that is refused.
    """
    shown = [] if secret is None else [SuperExecAuthHttpInterceptor(
        master_secret=secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"}))]  # fmt: skip
    client = RuntimeHttpClient.from_server_address(
        f"127.0.0.1:{port}",
        insecure=True,
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), *shown],
    )
    try:
        client.AcquireTask(AcquireTaskRequest())
    finally:
        client.close()


@pytest.mark.network
@pytest.mark.slow
def test_a_user_without_the_secret_gets_no_task(node: int, tmp_path: Path) -> None:
    secret = tmp_path / "fedmosaic" / f"superexec-{node}.secret"
    deadline = time.monotonic() + 120
    while True:
        try:
            acquire(node, secret.read_bytes())
            break
        except (httpx.TransportError, OSError):
            assert time.monotonic() < deadline
            time.sleep(0.2)
    for wrong in (None, b"x" * 32):
        with pytest.raises(httpx.HTTPStatusError, match=r"40[13]"):
            acquire(node, wrong)
    if os.geteuid() == 0:
        done = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", "cat", str(secret)], capture_output=True)
        assert done.returncode != 0
