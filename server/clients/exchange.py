"""Sending messages to the clients and receiving their replies, with a deadline.

Flower's own `Grid.send_and_receive` polls every 3 seconds. This module polls the same public interface more often.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from common.words.printable import of_others
from server.clients.uploads import uploads

POLL_SECONDS = 0.1
LONGEST = 2000
"""The maximum number of characters of a reason."""
AT_ONCE = 4
"""The maximum number of replies that are fetched, and so kept in memory, at the same time."""


@dataclass(frozen=True)
class Reply:
    """The result of the message to one node: its reply, or the reason why there is none."""

    node: int
    message: Message | None
    error: str = ""


def exchange(grid: Grid, messages: Iterable[Message], seconds: float) -> Iterator[Reply]:
    """Send the messages and yield each reply when it arrives, for at most `seconds`. Then yield the missing replies.

    Replies are fetched a few at a time, so memory does not grow with their number. An error reply of Flower may name
    the wrong sender, so the message that a reply answers identifies its node.
    """
    incoming, deadline = uploads(grid), time.monotonic() + seconds
    incoming.until = deadline
    sent = list(messages)
    ids = list(grid.push_messages(sent)) if sent else []
    # A message that could not be pushed has no id, e.g. because its node has just left.
    for message, name in zip(sent, ids, strict=True):
        if not name:
            yield Reply(message.metadata.dst_node_id, None, "its node is not connected")
    waiting = {name: message.metadata.dst_node_id for message, name in zip(sent, ids, strict=True) if name}
    while waiting and time.monotonic() < deadline:
        for few in batched(list(waiting), AT_ONCE):
            for name, came in incoming.pull(few):
                yield _reply(waiting.pop(name), came)
        if waiting:
            time.sleep(POLL_SECONDS)
    incoming.forget(waiting)
    for node in waiting.values():
        yield Reply(node, None, f"no reply within {seconds:g} s")


def batched(names: list[str], size: int) -> Iterator[list[str]]:
    """The names in lists of at most `size`."""
    return (names[start : start + size] for start in range(0, len(names), size))


def _reply(node: int, message: Message | str) -> Reply:
    if isinstance(message, str):
        return Reply(node, None, message)
    return Reply(node, None, why(message)) if message.has_error() else Reply(node, message)


def why(message: Message) -> str:
    """Flower's reason for an error reply. The reason may contain the text of an exception at the site."""
    return of_others(message.error.reason or f"Flower error code {message.error.code}", LONGEST)
