"""Child processes that end when their owner ends."""

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
"""Environment variable that marks all descendants of a launch, also those in another session."""
GRACE_SECONDS = 5.0


class Processes:
    """Started processes, each with its own log file. `stop` ends them and everything that they started."""

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
        """Start a process in its own session, so that Ctrl-C reaches only this process, which then ends the others.

        remedy: advice for the case that the process ends, which `check` reports as a failure; None: its end is not a
        failure. env: additions to the common environment.
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
        """Raises RunError, with the end of the log, when a vital process has ended."""
        for name, process in self._running.items():
            if name in self._vital and process.poll() is not None:
                remedy = f"\n  what to do: {self._vital[name]}" if self._vital[name] else ""
                raise RunError(f"{name} ended with status {process.returncode}:\n{tail(self.log(name))}{remedy}")

    def stop(self) -> None:
        """End all processes: SIGTERM to the last started first, then SIGKILL to all that remain."""
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
        self._guard.communicate()  # closes its input, which ends it


def _start_guard(mark: str) -> subprocess.Popen[bytes]:
    """Start a process that kills all processes with the mark when this process dies, even by SIGKILL.

    Only this process keeps the guard's input open, so the input ends when this process dies.
    """
    code = f"import sys; from deploy.engines.processes import kill_marked; sys.stdin.read(); kill_marked({mark!r})"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True)


def kill_marked(mark: str) -> None:
    """Kill all processes with a mark. A second pass kills processes that were starting during the first."""
    for _ in range(2):
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(mark: str) -> Iterator[int]:
    """The ids of the processes with a mark in their environment, except this one. Empty if there is no /proc."""
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
    """Different ports of the loopback interface that were free at the time of the call."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def wait_for_port(port: int, processes: Processes, seconds: float) -> None:
    """Wait until a process listens on a port of the loopback interface.

    Raises RunError when a process ends meanwhile, or after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        processes.check()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RunError(f"nothing listens on port {port} after {seconds:g} s")
