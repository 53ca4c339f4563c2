"""Messages to the clients and their replies, with a deadline.

Flower's own `Grid.send_and_receive` looks for replies every 3 seconds; this asks the same public interface more often.
"""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from flwr.app import Message
from flwr.serverapp import Grid

from common.flower_parts import PARTS

POLL_SECONDS = 0.1
AT_ONCE = 4
"""Replies that are fetched, and so held in memory, at a time."""


@dataclass(frozen=True)
class Reply:
    """What came of the message to one node: its reply, or why there is none."""

    node: int
    message: Message | None
    error: str = ""


def exchange(grid: Grid, messages: Iterable[Message], seconds: float) -> Iterator[Reply]:
    """Send the messages and yield the replies as they come, until all are there or the time is up; at last, those that
    did not come.

    Replies are fetched a few at a time, so that memory does not grow with their number. An error reply of Flower may
    name another sender than the node that failed, so replies are told apart by the message they answer.
    """
    limit_parts(grid, seconds)
    sent = list(messages)
    ids = list(grid.push_messages(sent)) if sent else []
    # A message that could not be pushed, to a node that has just left, has no id.
    for message, name in zip(sent, ids, strict=True):
        if not name:
            yield Reply(message.metadata.dst_node_id, None, "its node is not connected")
    waiting = {name: message.metadata.dst_node_id for message, name in zip(sent, ids, strict=True) if name}
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        for few in batched(list(waiting), AT_ONCE):
            for message in grid.pull_messages(few):
                yield _reply(waiting.pop(message.metadata.reply_to_message_id), message)
        if waiting:
            time.sleep(POLL_SECONDS)
    for node in waiting.values():
        yield Reply(node, None, f"no reply within {seconds:g} s")


def limit_parts(grid: Grid, seconds: float) -> None:
    """Bound how Flower's grid waits for the parts of a reply that a node has announced and not yet sent.

    Flower waits 1 s before it asks again, then 2, 4, 8 and 10 s, for two hours in all: a round would not end in time
    when a node dies while it sends. There is no setting, so the function's own options are given here.
    """
    module = sys.modules[type(grid).__module__]
    pull = getattr(module, "pull_objects", None)
    if pull is not None:  # a grid without network has none
        whole = pull.func if isinstance(pull, partial) else pull
        setattr(module, "pull_objects", partial(whole, **PARTS, max_time=seconds))  # noqa: B010 - mypy knows no such name


def batched(names: list[str], size: int) -> Iterator[list[str]]:
    """The names in lists of at most `size`."""
    return (names[start : start + size] for start in range(0, len(names), size))


def _reply(node: int, message: Message) -> Reply:
    if message.has_error():
        return Reply(node, None, message.error.reason or f"Flower error code {message.error.code}")
    return Reply(node, message)
