"""The resident worker of a site: keeps torch, the shard and its prepared examples between messages.

Flower starts a process for every message. This short-lived process (`client/app.py`) passes the message to the worker
(`client/resident/connection.py`) and returns the answer. The worker answers one message after the other with one
`client.site.Site`, which decides what leaves the site, with or without a worker. The worker ends

- when no message arrives for a while,
- together with the node, i.e. when the process that starts the ClientApps ends,
- when a process with other code or another configuration connects, which then starts a new worker,
- when the process that sent the message ends before the answer, because nothing else would stop a useless training,
- after an unexpected error or a fault of its device, so that the next message gets a clean process.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from client.resident import frames
from client.resident.connection import code
from client.site import Site
from common.hardware.computing import Hardware
from common.lifetime import end_with

log = logging.getLogger(__name__)
GOODBYE_SECONDS = 10.0


def main(settings: dict[str, Any]) -> NoReturn:
    """Run the worker process until it ends. settings: from `client.resident.connection`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for file in (settings["lock"], settings["listener"]):
        os.set_inheritable(file, False)
    threading.Thread(target=end_with, args=(settings["owner"],), daemon=True).start()
    if code() == settings["code"]:  # else the code has just changed, and the starting process gets no answer
        policy = Path(settings["policy"]) if settings["policy"] else None
        hardware = Hardware.of_node(settings["hardware"])
        worker = Worker(Path(settings["shard"]), settings["site"], policy, hardware, settings["key"])
        with socket.socket(fileno=settings["listener"]) as listener:
            worker.serve(listener, settings["minutes"] * 60)
            Path(listener.getsockname()).unlink(missing_ok=True)
    logging.shutdown()
    os._exit(0)  # frees the lock at once, because a normal exit with torch takes seconds


class Worker:
    """Answers all processes that have the key."""

    def __init__(self, shard: Path, site: str, policy: Path | None, hardware: Hardware, key: str) -> None:
        # Flower allows only its own tasks to create messages
        TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 0
        self._open, self._key = partial(Site, shard, site, policy, hardware=hardware), key
        self._site, self._stamp = self._open(), None

    def serve(self, listener: socket.socket, idle_seconds: float) -> None:
        """Answer one connection after the other, until none arrives for a while or another worker is needed."""
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
        """Answer one connection. Returns whether the worker continues afterwards."""
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
        return not self._site.device_failed

    def _answer(self, asked: frames.Frame) -> RecordDict:
        if asked.header["stamp"] != self._stamp:  # the shard has changed
            self._site, self._stamp = self._open(), asked.header["stamp"]
        # the ids do not matter, because a site does not read the sender or the receiver
        return self._site.answer(Message(frames.content_of(asked), dst_node_id=0, message_type=asked.header["kind"]))


def _say(connection: socket.socket, header: dict[str, Any], content: RecordDict | None = None) -> None:
    try:
        frames.send_content(connection, header, content if content is not None else RecordDict())
    except OSError:
        log.warning("the answer could not be sent: the process that sent the message has ended")


def _end_when_alone(connection: socket.socket, done: threading.Event) -> None:
    """End this process when the connection closes before the answer. The other side sends nothing until the answer, so
    `recv` returns only when the connection closes."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    if not done.is_set():
        log.warning("this message is not answered: the process that sent it has ended")
        os._exit(1)
