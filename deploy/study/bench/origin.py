"""The origin of results: the commit of the code, the command and the machine."""

import platform
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def commit() -> str:
    """The commit of this code, with a mark for changed files, or "an installed package"."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "an installed package"


def command() -> str:
    """The command line of this process."""
    return shlex.join(["fedmosaic", *sys.argv[1:]])


def machine(workers: int) -> str:
    """The kind of this machine, without its name."""
    return f"{workers} worker processes on {platform.machine()}"
