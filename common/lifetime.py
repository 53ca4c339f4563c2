"""The end of a process together with another one."""

import contextlib
import os
import select
import time
from typing import NoReturn

OWNER_SECONDS = 1.0
"""Interval of the checks whether the owner still runs, on systems that do not report its end."""


def end_with(owner: int) -> NoReturn:
    """End this process when the owner ends. Blocks, so call it in a thread of its own.

    owner: the id of a process.
    """
    with contextlib.suppress(ProcessLookupError):
        _wait_for_end(owner)
    os._exit(0)


def _wait_for_end(pid: int) -> None:
    """Wait until a process ends.

    Raises ProcessLookupError when there is no such process.
    """
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
