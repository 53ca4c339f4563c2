"""The way to the site's resident worker: found, or started, by the short-lived process that Flower makes of a message.

No module that is imported here may import torch: not doing that is what the worker is for. What the two share lies in a
private folder of the user: for each shard a socket and a file that a living worker holds locked, so that there is never
more than one. Both are authenticated by their permissions.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from client.resident import frames
from common.config.plugins import plugins
from common.errors import FedmosaicError

try:
    import fcntl
except ImportError:  # a platform without locks of this kind; it has no such sockets either
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

MINUTES_VARIABLE = "FEDMOSAIC_WORKER_MINUTES"
"""How long a worker waits for the next message before it ends; 0: no worker."""
MINUTES = 30.0
STARTS = 2
"""How often a worker is started for a message before the ClientApp process does its work."""
RETRY_SECONDS, RETRIES = 0.05, 1200
"""How often, and how many times, somebody is looked for who holds the lock and does not listen: he is about to start or
to end."""
COMMAND = """
import json, sys
settings = json.loads(sys.argv[1])
sys.path[:] = settings["path"]
from client.resident.worker import main
main(settings)
"""


class WorkerError(FedmosaicError):
    """What the server learns when the worker could not answer: an error of the code, or its death."""


class NoWorkerError(FedmosaicError):
    """There can be no worker here; the ClientApp process must do the work itself."""


@dataclass(frozen=True)
class Home:
    """What a worker works for: a shard folder, the site's name ("": the shard's own), the file of its policy."""

    shard: Path
    site: str
    policy: Path | None

    def settings(self) -> dict[str, str]:
        """As JSON values."""
        return {"shard": str(self.shard), "site": self.site, "policy": str(self.policy or "")}


def ask(home: Home, kind: str, content: RecordDict) -> RecordDict:
    """The worker's answer to a message of a kind ("query", "train"); a worker is started where there is none.

    Raises NoWorkerError when none can be had, and nothing was done yet; WorkerError when it failed at the message.
    """
    minutes = idle_minutes()
    place = private_folder() / hashlib.sha256(os.path.realpath(home.shard).encode()).hexdigest()[:16]
    with _connected(home, place, minutes) as connection:
        try:
            frames.send_content(connection, {"kind": kind, "stamp": stamp(home.shard)}, content)
            reply = frames.receive(connection)
        except (EOFError, OSError):
            raise WorkerError("the site's worker process ended while it answered; the site's log may say why") from None
    if "error" in reply.header:
        raise WorkerError(reply.header["error"])
    return frames.content_of(reply)


def idle_minutes() -> float:
    """Raises NoWorkerError when the site wants no worker."""
    given = os.environ.get(MINUTES_VARIABLE, str(MINUTES))
    try:
        minutes = float(given)
    except ValueError:
        raise NoWorkerError(f"{MINUTES_VARIABLE}={given!r} is no number of minutes") from None
    if not 0 < minutes < 1e6:
        raise NoWorkerError(f"{MINUTES_VARIABLE} is {given}")
    return minutes


def private_folder() -> Path:
    """A folder that this user alone can enter.

    Raises NoWorkerError when it cannot be made, or is somebody else's, or others may enter it.
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
        raise NoWorkerError(f"{folder} is not a folder that belongs to this user and is closed to others (chmod 700)")
    return folder


def code() -> str:
    """A digest of the Python files of `client` and `common` that this process imports, of where they are, and of the
    installed plugins."""
    digest = hashlib.sha256("".join(f"{plugin} {plugin.digest} " for plugin in plugins()).encode())
    for package in ("client", "common"):
        spec = find_spec(package)
        assert spec is not None and spec.submodule_search_locations
        folder = Path(next(iter(spec.submodule_search_locations))).resolve()
        for path in sorted(folder.rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path} {len(content)} ".encode() + content)
    return digest.hexdigest()


def stamp(shard: Path) -> list[list[Any]]:
    """What changes when a shard does: names, sizes and times of its metadata, and of what says what was completed."""
    files = [shard / "shard.json", shard / "metadata.jsonl", *sorted(shard.glob("completed/*/*.json*"))]
    return [[str(path), found.st_size, found.st_mtime_ns] for path in files for found in _stat(path)]


def _stat(path: Path) -> list[os.stat_result]:
    try:
        return [path.stat()]
    except OSError:  # the site says what is wrong with it
        return []


@contextmanager
def _connected(home: Home, place: Path, minutes: float) -> Iterator[socket.socket]:
    """A connection to a worker that runs this very code with this configuration, and now waits for a message."""
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
                    raise NoWorkerError("it ended before it took a message")
                starts += 1
                _start(place, free, {**settings, "key": key})
        connection = _greeted(place, key)
        if connection is not None:
            with connection:
                yield connection
            return
        time.sleep(RETRY_SECONDS)
    raise NoWorkerError(f"the process that holds {place}.lock does not listen")


def _key(settings: dict[str, Any]) -> str:
    """A worker serves only who would have started it just so: in the same environment, from the same node."""
    described = [settings, sys.executable, sorted(os.environ.items()), _started(settings["owner"])]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _started(pid: int) -> str:
    """When a process started, so that one with a used number is not taken for it; "" where there is no /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@contextmanager
def _lock(place: Path) -> Iterator[int | None]:
    """A file of the lock that a worker holds while it lives; None when somebody has it.

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
    """Start a worker that inherits the lock and the listening socket: whoever connects from now on is served.

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
                # -P: what it imports is found where this process finds it, and not beside the folder it stands in
                [sys.executable, "-P", "-c", COMMAND, told],
                stdin=subprocess.DEVNULL,
                stdout=2,  # into the node's log
                pass_fds=[listener.fileno(), lock],
            )
    except OSError as error:
        raise NoWorkerError(f"it cannot be started: {error}") from None


def _greeted(place: Path, key: str) -> socket.socket | None:
    """A connection to who has this key and is free; None where nobody listens, or one who ends as he has another."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(f"{place}.sock")
        frames.send(connection, {"key": key})
        frames.receive(connection)
    except (EOFError, OSError):
        connection.close()
        return None
    return connection
