"""Processes that end with the test that started them, however it ends."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def running(command: Sequence[object], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """A process in a session of its own; after the block it and its session are killed, and it is waited for."""
    with subprocess.Popen([str(word) for word in command], start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
