"""Messages to the clients and their replies, with a deadline.

Flower's own `Grid.send_and_receive` looks for replies every 3 seconds; this asks the same public interface more often.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Reply:
    """What came of the message to one node: its reply, or why there is none."""

    node: int
    message: Message | None
    error: str = ""


def exchange(grid: Grid, messages: Iterable[Message], seconds: float) -> list[Reply]:
    """Send the messages and collect the replies until all are there or the time is up.

    Replies come in the order of the messages. An error reply of Flower may name another sender than the node that
    failed, so replies are told apart by the message they answer.
    """
    sent = list(messages)
    ids = list(grid.push_messages(sent)) if sent else []
    # A message that could not be pushed, to a node that has just left, has no id.
    names = [name or f"unsent {index}" for index, name in enumerate(ids)]
    nodes = {name: message.metadata.dst_node_id for name, message in zip(names, sent, strict=True)}
    replies = {name: Reply(nodes[name], None, "its node is not connected") for name in set(names) - set(ids)}
    deadline = time.monotonic() + seconds
    while len(replies) < len(nodes) and time.monotonic() < deadline:
        for message in grid.pull_messages([name for name in nodes if name not in replies]):
            name = message.metadata.reply_to_message_id
            replies[name] = _reply(nodes[name], message)
        if len(replies) < len(nodes):
            time.sleep(POLL_SECONDS)
    late = f"no reply within {seconds:g} s"
    return [replies.get(name, Reply(node, None, late)) for name, node in nodes.items()]


def _reply(node: int, message: Message) -> Reply:
    if message.has_error():
        return Reply(node, None, message.error.reason or f"Flower error code {message.error.code}")
    return Reply(node, message)
