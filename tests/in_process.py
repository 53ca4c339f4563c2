"""A Flower grid without a network: messages go straight to the client's functions, one site a node."""

from collections.abc import Callable, Iterable
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from client import site
from common import wire
from common.errors import FedmosaicError

Tamper = Callable[[int, Message], Message]


def claim_identity() -> None:
    """Messages can only be built by a Flower task: play one."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = 1


class InProcessGrid(Grid):
    """Nodes 10, 11, ... answer from the given shard folders. tamper may change a reply on its way back."""

    def __init__(self, shards: list[Path], tamper: Tamper = lambda _, reply: reply) -> None:
        claim_identity()
        self.folders = {10 + i: folder for i, folder in enumerate(shards)}
        self.tamper = tamper
        self.sent: list[Message] = []
        self._replies: dict[str, Message] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.folders)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            name = f"message-{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = name
            self.sent.append(message)
            self._replies[name] = self._answer(message)
            ids.append(name)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(name) for name in message_ids]

    def _answer(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        handler = site.introduce if message.metadata.message_type == "query" else site.train_round
        try:
            content = handler(message, self.folders[node], "")
        except FedmosaicError as error:
            content = wire.record({"site": self.folders[node].name, "error": str(error)})
        reply = Message(content, reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node
        return self.tamper(node, reply)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise NotImplementedError

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))
