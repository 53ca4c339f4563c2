"""Pulling replies so that one incomplete reply does not block the others.

Flower's grid pulls replies one after the other, and waits for all parts of each, up to two hours. It has no setting for
this wait, so this module replaces the function that waits. It pulls a reply with missing parts in a separate thread,
and delivers it when it is complete.
"""

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary, ref

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, inflate_object_from_contents

from common.exchange.flower_parts import PARTS

AT_ONCE_SECONDS = 0.5
"""Seconds of waiting for the parts of a reply before its pull moves to a thread."""
SLOW: dict[str, Any] = {**PARTS, "initial_backoff": 0.2, "backoff_cap": 2.0}
INTRODUCTION_SECONDS = 60.0
UNSENT = "it announced a reply but did not send all of it"


class Uploads:
    """The incomplete replies of one grid, by the message that they answer. until: when to give them up."""

    def __init__(self, grid: Grid) -> None:
        self._grid = ref(grid)  # a weak reference, because the grid is the key of this object in a WeakKeyDictionary
        self.until = 0.0
        self._late: dict[str, Upload] = {}
        self._begun: dict[str, Upload] = {}
        module = sys.modules[type(grid).__module__]
        there = getattr(module, "pull_objects", None)
        before = getattr(there, "__self__", None)  # the replacement by another grid of this process
        self._flowers: Callable[..., dict[str, bytes]] | None = (
            before._flowers if isinstance(before, Uploads) else there
        )
        if self._flowers is not None:  # a grid without network has no such function
            setattr(module, "pull_objects", self._pull_objects)  # noqa: B010 - mypy does not know the name

    def pull(self, names: Iterable[str]) -> Iterator[tuple[str, Message | str]]:
        """Yield complete replies, and reasons for replies that will not come. Does not wait for the others."""
        asked, grid = list(names), self._grid()
        assert grid is not None
        for message in grid.pull_messages([name for name in asked if name not in self._late]):
            name = message.metadata.reply_to_message_id
            if upload := self._announced(message):
                self._late[name] = upload
            else:
                yield name, message
        for name in [name for name in asked if name in self._late and self._late[name].ended]:
            yield name, self._late.pop(name).outcome

    def forget(self, names: Iterable[str]) -> None:
        """Stop waiting for the replies to these messages."""
        for name in names:
            self._late.pop(name, None)

    def _announced(self, message: Message) -> "Upload | None":
        """The upload in progress behind a message in which Flower reports that a reply cannot be pulled."""
        reason = (message.error.reason or "") if message.has_error() else ""
        token = next((token for token in self._begun if token in reason), None)
        return self._begun.pop(token) if token else None

    def _pull_objects(self, object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
        """The replacement of Flower's function."""
        assert self._flowers is not None
        pull = partial(self._flowers, object_ids, pull_object_fn)
        try:
            return pull(**PARTS, max_time=AT_ONCE_SECONDS)
        except ObjectPullError:
            left = (self.until - time.monotonic()) if self.until > time.monotonic() else INTRODUCTION_SECONDS
            upload = Upload(object_ids[-1], partial(pull, **SLOW, max_time=left))
        token = uuid.uuid4().hex
        self._begun[token] = upload
        raise ObjectPullError(token, "it is still being sent")


class Upload(threading.Thread):
    """Pulls the parts of one reply in a thread. reply: the id of the reply, which is the id of its last part."""

    def __init__(self, reply: str, pull: Callable[[], dict[str, bytes]]) -> None:
        super().__init__(daemon=True)
        self._reply, self._pull = reply, pull
        self.ended = False
        self.outcome: Message | str = UNSENT
        self.start()

    def run(self) -> None:
        """Pull until the reply is complete or the time is up."""
        try:
            contents = self._pull()
            message = cast(Message, inflate_object_from_contents(self._reply, contents))
            message.metadata.__dict__["_message_id"] = self._reply
            self.outcome = message
        except ObjectPullError:
            pass  # the outcome stays UNSENT
        except Exception as error:  # malformed content must not raise from this thread
            self.outcome = f"its reply cannot be read: {type(error).__name__}"
        finally:
            self.ended = True


_uploads: "WeakKeyDictionary[Grid, Uploads]" = WeakKeyDictionary()


def uploads(grid: Grid) -> Uploads:
    """The uploads of a grid."""
    if grid not in _uploads:
        _uploads[grid] = Uploads(grid)
    return _uploads[grid]
