"""Connects to the resident worker of a site, and starts a worker if there is none. Flower starts a short-lived process
per message, and this process uses this module.

No module that is imported here may import torch, because the purpose of the worker is to avoid this import. The process
and the worker share a private folder of the user. It contains a socket and a lock file per shard. A running worker
holds the lock, so there is never more than one. File permissions authenticate both sides.
"""

import hashlib
import json
import logging
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from client.resident import frames
from common.config.plugins import stamps
from common.errors import FedmosaicError

try:
    import fcntl
except ImportError:  # this platform has neither such locks nor such sockets
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

MINUTES_VARIABLE = "FEDMOSAIC_WORKER_MINUTES"
"""Environment variable with the minutes that a worker waits for the next message before it ends. 0: no worker."""
MINUTES = 30.0
STARTS = 2
"""Number of attempts to start a worker for a message. After that, the ClientApp process answers the message itself."""
RETRY_SECONDS, RETRIES = 0.05, 1200
"""Interval and number of attempts to connect while a worker holds the lock but does not listen, because it is starting
or ending."""
COMMAND = """
import json, sys
settings = json.loads(sys.argv[1])
sys.path[:] = settings["path"]
from client.resident.worker import main
main(settings)
"""


class WorkerError(FedmosaicError):
    """The worker could not answer, because of an error in the code or because it died. The server receives the
    message."""


class NoWorkerError(FedmosaicError):
    """A worker is not possible on this machine. The ClientApp process must do the work itself."""


@dataclass(frozen=True)
class Home:
    """The configuration of a worker: the shard folder, the site's name ("" for the name in the shard), the file of the
    site's policy, and the settings of its hardware."""

    shard: Path
    site: str
    policy: Path | None
    hardware: Mapping[str, str] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """The configuration as JSON values."""
        return {
            "shard": str(self.shard),
            "site": self.site,
            "policy": str(self.policy or ""),
            "hardware": dict(self.hardware),
        }


def ask(home: Home, kind: str, content: RecordDict) -> RecordDict:
    """The worker's answer to a message of a kind ("query", "train"). A worker is started if there is none.

    Raises NoWorkerError when a worker is not possible; nothing is done then. Raises WorkerError when the worker failed.
    """
    minutes = idle_minutes()
    place = private_folder() / hashlib.sha256(os.path.realpath(home.shard).encode()).hexdigest()[:16]
    with _connected(home, place, minutes) as connection:
        try:
            frames.send_content(connection, {"kind": kind, "stamp": stamp(home.shard)}, content)
            reply = frames.receive(connection)
        except (EOFError, OSError):
            raise WorkerError("the site's worker process ended while it answered; see the node's log") from None
    if "error" in reply.header:
        raise WorkerError(reply.header["error"])
    return frames.content_of(reply)


def idle_minutes() -> float:
    """The minutes that a worker waits for the next message.

    Raises NoWorkerError when the site has switched the worker off.
    """
    given = os.environ.get(MINUTES_VARIABLE, str(MINUTES))
    try:
        minutes = float(given)
    except ValueError:
        raise NoWorkerError(f"{MINUTES_VARIABLE}={given!r} is not a number of minutes") from None
    if not 0 < minutes < 1e6:
        raise NoWorkerError(f"{MINUTES_VARIABLE} is {given}")
    return minutes


def private_folder() -> Path:
    """A folder that only this user can enter.

    Raises NoWorkerError when it cannot be made, belongs to another user, or other users may enter it.
    """
    if fcntl is None or not hasattr(socket, "AF_UNIX"):
        raise NoWorkerError("this platform has no local sockets")
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    parent, name = (runtime, "fedmosaic") if runtime else (tempfile.gettempdir(), f"fedmosaic-{os.getuid()}")
    folder = Path(parent) / name
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise NoWorkerError(f"no private folder: {error}") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise NoWorkerError(f"{folder} must be a folder that belongs to this user and is closed to others (chmod 700)")
    return folder


def code() -> str:
    """A hash of the Python files of `client` and `common` that this process imports, of their paths, and of the
    installed plugins."""
    digest = hashlib.sha256(stamps().encode("utf-8", "surrogateescape"))
    for package in ("client", "common"):
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        folder = Path(next(iter(spec.submodule_search_locations))).resolve()
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path} {len(content)} ".encode() + content)
    return digest.hexdigest()


def stamp(shard: Path) -> list[list[Any]]:
    """Names, sizes and modification times of a shard's metadata and completion files. They change when the shard
    changes."""
    files = [shard / "shard.json", shard / "metadata.jsonl", *sorted(shard.glob("completed/*/*.json*"))]
    return [[str(path), found.st_size, found.st_mtime_ns] for path in files for found in _stat(path)]


def _stat(path: Path) -> list[os.stat_result]:
    try:
        return [path.stat()]
    except OSError:  # reported later, when the site opens the shard
        return []


@contextmanager
def _connected(home: Home, place: Path, minutes: float) -> Iterator[socket.socket]:
    """A connection to a worker that runs the same code with this configuration and waits for a message."""
    settings = {
        **home.settings(),
        "code": code(),
        "path": [os.path.abspath(folder) for folder in sys.path],
        "folder": os.getcwd(),  # where relative paths start
        "owner": os.getppid(),
        "minutes": minutes,
    }
    key = _key(settings)
    starts = 0
    for _ in range(RETRIES):
        with _lock(place) as free:
            if free is not None:
                if starts == STARTS:
                    raise NoWorkerError("it ended before it accepted a message")
                starts += 1
                _start(place, free, {**settings, "key": key})
        connection = _greeted(place, key)
        if connection is not None:
            with connection:
                yield connection
            return
        time.sleep(RETRY_SECONDS)
    raise NoWorkerError(f"the process that holds {place}.lock accepts no connections")


def _key(settings: dict[str, Any]) -> str:
    """A hash of everything that a worker depends on. A worker serves only processes with the same key, i.e. with the
    same settings and environment, from the same node."""
    described = [settings, sys.executable, sorted(os.environ.items()), _started(settings["owner"])]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _started(pid: int) -> str:
    """The start time of a process; "" without /proc. It distinguishes the process from a later one with the same
    id."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@contextmanager
def _lock(place: Path) -> Iterator[int | None]:
    """The file descriptor of the lock that a worker holds while it runs; None when another process holds the lock.

    Raises NoWorkerError.
    """
    try:
        file = os.open(f"{place}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NoWorkerError(f"no lock: {error}") from None
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file
    finally:
        os.close(file)


def _start(place: Path, lock: int, settings: dict[str, Any]) -> None:
    """Start a worker that inherits the lock and the listening socket. The worker serves all connections from now on.

    Raises NoWorkerError.
    """
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            path = Path(f"{place}.sock")
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen()
            told = json.dumps({**settings, "listener": listener.fileno(), "lock": lock})
            subprocess.Popen(
                # -P: modules are imported from this process's path, not from the current folder
                [sys.executable, "-P", "-c", COMMAND, told],
                stdin=subprocess.DEVNULL,
                stdout=2,  # to the node's log
                pass_fds=[listener.fileno(), lock],
            )
    except OSError as error:
        raise NoWorkerError(f"it cannot be started: {error}") from None


def _greeted(place: Path, key: str) -> socket.socket | None:
    """A connection to a free worker with this key; None if no worker listens, or if the worker has another key and
    ends."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"{place}.sock")
        frames.send(connection, {"key": key})
        frames.receive(connection)
    except (EOFError, OSError):
        connection.close()
        return None
    return connection
