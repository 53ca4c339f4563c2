"""Where results come from: the commit of the code, the command and the machine."""

import platform
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path


@cache
def commit() -> str:
    """The commit of this code, marked where files were changed since, or that it is installed from a package."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "an installed package"


def command() -> str:
    """The command as it was typed."""
    return shlex.join(["fedmosaic", *sys.argv[1:]])


def machine(workers: int) -> str:
    """What kind of machine this is, without its name."""
    return f"{workers} worker processes on {platform.machine()}"
