"""Flower's SuperExec, which starts a process for each task, closed to the other users of its host.

A SuperNode or a SuperLink that starts it itself hands tasks to whoever asks on a port of the loopback interface. Here
it shows a secret that only its user can read, and the token of a task, which Flower writes into a command line that
every user can see, is handed on in a file without a name.
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
"""Environment variable of a SuperNode: the options of the SuperExec that it is to start, one a line."""


def isolated(address: str, secret: Path, trust: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a SuperNode or SuperLink that serves only who has a secret, and those of its SuperExec.

    trust: how the SuperExec knows the address: "--insecure", or "--root-certificates" and a file.
    """
    if not secret.exists():
        write_whole(secret, secrets.token_bytes(SECRET_BYTES))
    shared = ["--superexec-auth-secret-file", str(secret)]
    return ["--isolation", "process", *shared], ["--runtime-api-address", address, *shared, *trust]


def start(options: Sequence[str], folder: Path | None = None) -> None:
    """Start a SuperExec that ends with this process, or with the program that this process becomes. folder: where the
    processes of its tasks work; None: in this one's."""
    command = [sys.executable, "-P", "-m", "deploy.hosts.superexec", *options, "--parent-pid", str(os.getpid())]
    subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)


def main() -> None:
    """`flower-superexec`, with the options of Flower's."""
    executor = import_module("flwr.supercore.superexec.executor.subprocess_executor")
    executor.__dict__["subprocess"] = SimpleNamespace(Popen=launch, DEVNULL=subprocess.DEVNULL)
    import_module("flwr.supercore.cli.flower_superexec").flower_superexec()


def launch(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start the process of a task, its token out of sight."""
    with tempfile.TemporaryFile() as token:  # a file that no other process can open, as it has no name
        token.write(command[command.index("--token") + 1].encode())
        token.flush()
        hidden = list(command)
        place = hidden.index("--token")
        hidden[place : place + 2] = ["--token-file", f"/dev/fd/{token.fileno()}"]
        return subprocess.Popen(hidden, pass_fds=[token.fileno()], **options)


if __name__ == "__main__":
    main()
