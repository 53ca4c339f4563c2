"""Processes that end when their owner ends."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from common.errors import RunError
from deploy.hosts.environment import surroundings

MARK = "FEDMOSAIC_LAUNCH"
"""Environment variable by which the descendants of a launch are found, wherever they moved themselves."""
GRACE_SECONDS = 5.0


class Processes:
    """Started processes with a log file each. `stop` ends them and everything they started."""

    def __init__(self, logs: Path, env: Mapping[str, str]) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self.mark = uuid.uuid4().hex
        self.env = {**surroundings(), **env, MARK: self.mark}
        self._guard = _start_guard(self.mark)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._vital: dict[str, str] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        cwd: Path,
        remedy: str | None = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start a process in a session of its own, so that Ctrl-C reaches only us and we end it in order.

        remedy: what would help against its end, which is a failure that `check` reports; None where it is none.
        env: what differs from the others' environment.
        """
        with self.log(name).open("wb") as output:
            self._running[name] = subprocess.Popen(
                command,
                cwd=cwd,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if remedy is not None:
            self._vital[name] = remedy

    def log(self, name: str) -> Path:
        """The file with a process's output."""
        return self.logs / f"{name}.log"

    def check(self) -> None:
        """Raises RunError, with the end of its log, when a vital process has ended."""
        for name, process in self._running.items():
            if name in self._vital and process.poll() is not None:
                remedy = f"\n  what would help: {self._vital[name]}" if self._vital[name] else ""
                raise RunError(f"{name} ended with status {process.returncode}:\n{tail(self.log(name))}{remedy}")

    def stop(self) -> None:
        """End all: asked politely first, last started first, then by force."""
        for process in reversed(self._running.values()):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        kill_marked(self.mark)
        for process in self._running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()
        self._guard.communicate()  # closes its input, at which it ends


def _start_guard(mark: str) -> subprocess.Popen[bytes]:
    """A process that kills what carries our mark when we die, even if we are killed and can stop nothing: its input,
    which only we hold open, ends then."""
    code = f"import sys; from deploy.engines.processes import kill_marked; sys.stdin.read(); kill_marked({mark!r})"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True)


def kill_marked(mark: str) -> None:
    """Kill whatever carries a mark; twice, in case one was just starting another."""
    for _ in range(2):
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(mark: str) -> Iterator[int]:
    """The processes with a mark in their environment, but not this one. Empty where there is no /proc."""
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and needle in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def tail(path: Path, lines: int = 15) -> str:
    """The last lines of a log."""
    text = path.read_text(errors="replace") if path.exists() else ""
    return "\n".join(text.splitlines()[-lines:])


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that were free a moment ago, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_for_port(port: int, processes: Processes, seconds: float) -> None:
    """Return when something listens on a port of the loopback interface.

    Raises RunError when a process ends meanwhile or the time is up.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        processes.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RunError(f"nothing listens on port {port} after {seconds:g} s")
