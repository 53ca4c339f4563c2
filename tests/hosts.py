"""Hosts on one machine: network namespaces with addresses of their own, joined by a bridge in another namespace."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.engines.processes import Processes

NETWORK = "10.231.7"


@dataclass(frozen=True)
class Host:
    """A host: its namespace, its address and a folder of its own, which is its home."""

    namespace: str
    address: str
    folder: Path

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """A command as it is run on this host."""
        own = [f"HOME={self.folder}", f"FLWR_HOME={self.folder / 'flower'}"]
        return ["ip", "netns", "exec", self.namespace, "env", *own, *map(str, command)]

    def run(self, *command: str | Path, seconds: float = 900) -> tuple[int, str]:
        """Run a command in the host's folder to its end: its status and its output.

        The output goes through a file: a SuperNode's child holds a pipe open until the SuperNode has been waited for.
        """
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                self.inside(command), cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, timeout=seconds
            )
            output.seek(0)
            return done.returncode, output.read()

    def start(self, processes: Processes, name: str, *command: str | Path) -> None:
        """Start a command in the host's folder."""
        processes.start(name, self.inside(command), self.folder)

    def sockets(self, *which: str) -> list[str]:
        """What `ss` lists of a host's TCP sockets."""
        return subprocess.run(
            ["ip", "netns", "exec", self.namespace, "ss", "-Htn", *which], capture_output=True, text=True, check=True
        ).stdout.splitlines()

    def wait_for(self, processes: Processes, port: int, seconds: float = 300) -> None:
        """Until something listens on a port of the host."""
        deadline = time.monotonic() + seconds
        while not self.sockets("-l", f"sport = :{port}"):
            processes.check()
            assert time.monotonic() < deadline, f"nothing listens on {self.address}:{port}"
            time.sleep(0.2)

    def cut(self) -> None:
        """Take the host off the network."""
        _ip("-n", self.namespace, "link", "set", "eth0", "down")

    def heal(self) -> None:
        """Put it back."""
        _ip("-n", self.namespace, "link", "set", "eth0", "up")

    def names(self, names: Mapping[str, str]) -> None:
        """Give the host an /etc/hosts of its own."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
        _hosts_file(self.namespace).parent.mkdir(parents=True)
        _hosts_file(self.namespace).write_text("\n".join(lines) + "\n")


def why_not() -> str:
    """Why there can be no namespaces here; "" when there can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with network(1, Path("/nonexistent")):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network namespaces are not permitted here: {getattr(error, 'stderr', None) or error}"


@contextmanager
def network(count: int, folder: Path) -> Iterator[list[Host]]:
    """Hosts that reach one another; gone at the end, however it comes."""
    prefix = f"fm{os.getpid()}-{time.monotonic_ns() % 10**6}"
    switch = f"{prefix}-switch"
    hosts = [Host(f"{prefix}-{i}", f"{NETWORK}.{i + 1}", folder / f"host-{i}") for i in range(count)]
    try:
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", switch, "link", "set", "br0", "up")
        for index, host in enumerate(hosts):
            _connect(host, switch, f"port{index}")
            if folder.exists():
                host.folder.mkdir()
        yield hosts
    finally:
        for namespace in [*(host.namespace for host in hosts), switch]:
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
            _hosts_file(namespace).unlink(missing_ok=True)
            if _hosts_file(namespace).parent.exists():
                _hosts_file(namespace).parent.rmdir()


def _connect(host: Host, switch: str, port: str) -> None:
    inside = ("-n", host.namespace)
    _ip("netns", "add", host.namespace)
    _ip(*inside, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch)
    _ip("-n", switch, "link", "set", port, "master", "br0", "up")
    _ip(*inside, "addr", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip(*inside, "link", "set", device, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)


def _hosts_file(namespace: str) -> Path:
    return Path("/etc/netns") / namespace / "hosts"
