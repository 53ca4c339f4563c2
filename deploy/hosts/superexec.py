"""Flower's SuperExec, protected from other users of its host. It starts a process for each task.

If Flower's SuperNode or SuperLink starts the SuperExec itself, it gives tasks to every process that connects to a port
of the loopback interface. Here, the SuperExec proves its identity with a secret that only its user can read. Flower
also writes the token of a task into a command line, which every user can see. Here, a file without a name passes the
token.
"""

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.files import write_whole

SECRET_BYTES = 32
VARIABLE = "FEDMOSAIC_SUPEREXEC"
"""Environment variable of a SuperNode: the options of the SuperExec that it starts, one option per line."""


def isolated(address: str, secret: Path, trust: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a SuperNode or SuperLink that requires a secret, and the options of its SuperExec.

    trust: how the SuperExec verifies the address: "--insecure", or "--root-certificates" and a file.
    """
    if not secret.exists():
        write_whole(secret, secrets.token_bytes(SECRET_BYTES))
    shared = ["--superexec-auth-secret-file", str(secret)]
    return ["--isolation", "process", *shared], ["--runtime-api-address", address, *shared, *trust]


def start(options: Sequence[str], folder: Path | None = None) -> None:
    """Start a SuperExec that ends with this process, or with the program that this process becomes. folder: the working
    directory of its tasks; None: the current one."""
    command = [sys.executable, "-P", "-m", "deploy.hosts.superexec", *options, "--parent-pid", str(os.getpid())]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)


def main() -> None:
    """`flower-superexec`, with the same options as Flower's command."""
    executor = import_module("flwr.supercore.superexec.executor.subprocess_executor")
    executor.__dict__["subprocess"] = SimpleNamespace(Popen=launch, DEVNULL=subprocess.DEVNULL)
    import_module("flwr.supercore.cli.flower_superexec").flower_superexec()


def launch(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start the process of a task with a hidden token."""
    with tempfile.TemporaryFile() as token:  # no other process can open this file, because it has no name
        token.write(command[command.index("--token") + 1].encode())
        token.flush()
        hidden = list(command)
        place = hidden.index("--token")
        hidden[place : place + 2] = ["--token-file", f"/dev/fd/{token.fileno()}"]
        return subprocess.Popen(hidden, pass_fds=[token.fileno()], **options)


if __name__ == "__main__":
    main()
