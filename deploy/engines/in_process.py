"""A federation in one process: server and clients connected by Flower's Grid interface, without a network.

It suits sweeps and benchmarks of many small runs, because it starts no process and every site keeps its prepared
examples. Parameters still pass through messages, so the results equal those of the other engines.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client.site import Site
from common.config.plugins import pins
from common.data.sites import client_folders
from common.hardware.computing import Hardware
from common.hardware.device import CPU
from server.app import main

log = logging.getLogger(__name__)
Tamper = Callable[[int, Message], Message]
FIRST_NODE = 10


def claim_identity() -> None:
    """Set the identity of a Flower task in this process, because only tasks can make messages."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


def run_here(settings: Mapping[str, str], shards: Path, clients: int) -> None:
    """Run the ServerApp with the sites of a folder of shards. The run folder is the same as with any other engine.

    settings: the run configuration of the ServerApp.

    Raises FedmosaicError when the run fails.
    """
    grid = InProcessGrid([own_site(shard, settings["device"]) for shard in client_folders(shards, clients)])
    main(grid, Context(1, 1, {}, RecordDict(), dict(settings)))


def own_site(shard: Path, device: str = CPU) -> Site:
    """A site on the machine of the person who starts the run. It allows every installed plugin."""
    return Site(shard, allowed=pins(), hardware=Hardware(device))


class InProcessGrid(Grid):
    """Nodes 10, 11, ... are the given sites. tamper: changes replies, for tests."""

    def __init__(self, sites: Sequence[Site], tamper: Tamper = lambda _, reply: reply) -> None:
        claim_identity()
        self.sites = dict(enumerate(sites, start=FIRST_NODE))
        self._tamper = tamper
        self._sent = 0
        self._waiting: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        """The nodes."""
        return list(self.sites)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Accept messages. A site answers a message when its reply is pulled."""
        ids = []
        for message in messages:
            name = f"message-{self._sent}"
            message.metadata.__dict__["_message_id"] = name
            self._sent += 1
            self._waiting[name] = message
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to messages. Each is computed when it is needed, so that only one is in memory."""
        return (self._answer(self._waiting.pop(name)) for name in message_ids)

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        try:
            reply = Message(self.sites[node].answer(message), reply_to=message)
        except Exception as error:  # Flower's answer for a ClientApp that raises
            log.error("node %d raised an exception", node, exc_info=error)
            reason = f"{type(error)}:<'{error}'>"
            reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node
        return self._tamper(node, reply)

    def set_run(self, run: Run) -> None:
        """Not used, because there is one run."""
        raise NotImplementedError

    @property
    def run(self) -> Run:
        """Not used: there is one run."""
        raise NotImplementedError

    def create_message(self, *args: object, **kwargs: object) -> Message:
        """Not used, because Flower's constructor makes the messages."""
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push messages and pull their replies."""
        return list(self.pull_messages(self.push_messages(messages)))
