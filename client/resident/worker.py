"""The resident worker of a site: keeps torch, the shard and its prepared examples between messages.

Flower starts a process for every message; that process (`client/app.py`) hands the message over
(`client/resident/connection.py`) and returns the answer. The worker answers one message after the other with one
`client.site.Site`, so that what leaves the site is decided there as ever. It ends

- when no message has come for a while,
- with the node: when the process that starts the ClientApps is gone,
- when it is asked by somebody with other code or another configuration, who then starts another one,
- when who asked is gone before the answer, as nothing else would stop a training that nobody waits for,
- after an error that is not this project's own, so that the next message finds a process without its traces.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.resident import frames
from client.resident.connection import code
from client.site import Site

log = logging.getLogger(__name__)
OWNER_SECONDS = 1.0
"""How often the owner is looked for where the system cannot tell of its end."""
GOODBYE_SECONDS = 10.0


def main(settings: dict[str, Any]) -> NoReturn:
    """The process: serve until it is time to end. settings: as `client.resident.connection` makes them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for file in (settings["lock"], settings["listener"]):
        os.set_inheritable(file, False)
    threading.Thread(target=_end_with, args=(settings["owner"],), daemon=True).start()
    if code() == settings["code"]:  # else it was changed just now, and who started this process learns it
        policy = Path(settings["policy"]) if settings["policy"] else None
        worker = Worker(Path(settings["shard"]), settings["site"], policy, settings["key"])
        with socket.socket(fileno=settings["listener"]) as listener:
            worker.serve(listener, settings["minutes"] * 60)
            Path(listener.getsockname()).unlink(missing_ok=True)
    logging.shutdown()
    os._exit(0)  # and the lock is free: taking torch apart needs seconds


class Worker:
    """Answers whoever has the key."""

    def __init__(self, shard: Path, site: str, policy: Path | None, key: str) -> None:
        # Flower lets nobody make a message who is not one of its tasks
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 0
        self._home, self._key = (shard, site, policy), key
        self._site, self._stamp = Site(*self._home), None

    def serve(self, listener: socket.socket, idle_seconds: float) -> None:
        """Answer one after the other, until nobody has come for a while or another worker is needed."""
        listener.settimeout(idle_seconds)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                return
            with connection:
                connection.setblocking(True)
                if not self._serve(connection):
                    return

    def _serve(self, connection: socket.socket) -> bool:
        """Whether to go on afterwards."""
        try:
            if frames.receive(connection).header["key"] != self._key:
                return False
            frames.send(connection, {})
            asked = frames.receive(connection)
        except (EOFError, OSError):
            return True
        done = threading.Event()
        watch = threading.Thread(target=_end_when_alone, args=(connection, done), daemon=True)
        watch.start()
        try:
            reply = self._answer(asked)
        except Exception as error:
            log.exception("this message could not be answered")
            done.set()
            _say(connection, {"error": f"{type(error).__name__}: {error}"})
            return False
        done.set()
        _say(connection, {}, reply)
        watch.join(GOODBYE_SECONDS)
        return True

    def _answer(self, asked: frames.Frame) -> RecordDict:
        if asked.header["stamp"] != self._stamp:  # the shard is another one now
            self._site, self._stamp = Site(*self._home), asked.header["stamp"]
        # of whom it is, and for whom, a site reads nothing
        return self._site.answer(Message(frames.content_of(asked), dst_node_id=0, message_type=asked.header["kind"]))


def _say(connection: socket.socket, header: dict[str, Any], content: RecordDict | None = None) -> None:
    try:
        frames.send_content(connection, header, content if content is not None else RecordDict())
    except OSError:
        log.warning("who asked is gone before the answer")


def _end_when_alone(connection: socket.socket, done: threading.Event) -> None:
    """Until the answer is sent, who asked says nothing more: its connection can only end."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    if not done.is_set():
        log.warning("who asked is gone, so this message is not answered")
        os._exit(1)


def _end_with(owner: int) -> NoReturn:
    """End this process with another one."""
    with contextlib.suppress(ProcessLookupError):
        _wait_for_end(owner)
    os._exit(0)


def _wait_for_end(pid: int) -> None:
    """Raises ProcessLookupError when there is no such process."""
    try:
        file = os.pidfd_open(pid)
    except (AttributeError, OSError) as error:
        if isinstance(error, ProcessLookupError):
            raise
        while _exists(pid):
            time.sleep(OWNER_SECONDS)
    else:
        select.select([file], [], [])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
