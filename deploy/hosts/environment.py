"""The environment of child processes: this Python's commands are on PATH, and loopback bypasses every proxy."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

NO_PROXY = ("no_proxy", "NO_PROXY", "no_grpc_proxy")
"""HTTP clients read the one of the first two that is set. gRPC reads the third, or if it is not set, the first."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # otherwise, every run would install the dependencies again
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",  # seconds; Flower's default of 1 s would delay every round
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Settings of Flower and Ray, as environment variables."""


def surroundings(first_on_path: Sequence[Path] = ()) -> dict[str, str]:
    """This process's environment, with some folders and this Python's commands first on PATH, and without a proxy for
    loopback."""
    folders = [*map(str, first_on_path), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    return {**os.environ, "PATH": os.pathsep.join(folders), **_without_proxy()}


def _without_proxy() -> dict[str, str]:
    given = [name for part in NO_PROXY for name in os.environ.get(part, "").split(",") if name.strip()]
    return dict.fromkeys(NO_PROXY, ",".join(dict.fromkeys([*map(str.strip, given), *LOOPBACK])))
