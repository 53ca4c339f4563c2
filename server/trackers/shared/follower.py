"""A tracker in a thread of its own: a run hands it events, and never waits for it before the end."""

import logging
import queue
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from server.trackers.base import Tracker
from server.trackers.shared.failures import note

log = logging.getLogger(__name__)
MOST_WAITING = 256
"""The maximum number of events in the queue of a tracker."""
Event = Callable[[Tracker], None]


class Follower:
    """Passes events to a tracker. The first failure is one warning. After it, the tracker receives no further event.

    folder: the run folder, where the failure is noted.
    """

    def __init__(self, name: str, tracker: Tracker, folder: Path) -> None:
        self._name, self._tracker, self._folder = name, tracker, folder
        self._events: queue.Queue[Event | None] = queue.Queue(MOST_WAITING)
        self._lock = threading.Lock()
        self._lost = False
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()

    def tell(self, event: Event | None) -> None:
        """Queue an event; None: the end of the events. Returns at once."""
        if self._lost:
            return
        try:
            self._events.put_nowait(event)
        except queue.Full:
            self._lose(f"it is {MOST_WAITING} events behind")

    def wait(self, until: float) -> None:
        """Wait for the end of the thread. until: a time of time.monotonic()."""
        self._thread.join(max(0.0, until - time.monotonic()))
        if self._thread.is_alive():
            self._lose("it did not finish in time")

    def _work(self) -> None:
        try:
            while not self._lost and (event := self._events.get()) is not None:
                event(self._tracker)
        except (Exception, SystemExit) as error:
            self._lose(_reason(error))
        finally:
            self._close()

    def _close(self) -> None:
        try:
            self._tracker.close()
        except (Exception, SystemExit) as error:
            self._lose(_reason(error))

    def _lose(self, reason: str) -> None:
        with self._lock:
            before, self._lost = self._lost, True
        if not before:
            failure = f"tracker {self._name}: {reason}; the run continues without it"
            log.warning("%s", failure)
            note(self._folder, failure)


def _reason(error: BaseException) -> str:
    """One line without the user and the password of an address."""
    text = re.sub(r"//[^/\s@]*@", "//", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__
