"""Flower's SuperNode with shorter waits and with explanations in its log.

Flower 1.39 has fixed sleeps without a setting in `flwr/supernode/start_client_internal.py`. This module changes them,
if the installed Flower has the same sleeps:

- 3 s whenever the SuperLink has no message. Here: a tenth of the idle time so far, at least 0.1 s and at most 3 s. So a
  message waits for at most a tenth of the idle time before it, and many idle nodes do not poll the SuperLink more often
  than with Flower.
- 0.5 s between checks for the ClientApp's reply, which is in the same process. Here: 0.02 s.
- 1 s, then 2, 4, 8 and 10 s, for a part of a message that the server has announced but not sent yet. A node that polls
  often meets this case regularly. Here: 0.05 s, growing to 0.2 s.

Flower ends a node when the SuperLink refuses its key, and a SuperLink refuses a key for a minute after a node with this
key was killed. Here, a refused node retries a little longer than that. So a node that restarts at once can reconnect,
and a run that waits for it continues.
"""

import ast
import importlib
import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from common.exchange.flower_parts import PARTS
from common.words.node_log import say
from deploy.hosts import superexec
from deploy.hosts.explain import FLOWER_LOG, REFUSED, REFUSED_KEY, explain_what_follows

NOTHING, REPLY = 3, 0.5
"""Seconds that Flower waits when there is no message, and for a reply or a part of one."""
FLOWERS = [f"time.sleep({seconds})" for seconds in (REPLY, REPLY, NOTHING)]
SHARE, SHORTEST = 0.1, 0.1
REPLY_SECONDS = 0.02
QUIET_SECONDS = 600.0
"""Idle time after which a log line reports it."""
REFUSED_SECONDS = 75.0
"""How long a refused node keeps trying. A SuperLink expects a killed node to return for 60 s."""


class Waits:
    """A replacement of the module `time`, for a module that only uses `sleep`."""

    def __init__(self) -> None:
        self._busy, self._quiet = time.monotonic(), False

    def sleep(self, seconds: float) -> None:
        """Sleep for a shorter time than Flower's `seconds`, which identify the reason for the wait."""
        if seconds == REPLY:
            self._busy, self._quiet = time.monotonic(), False
            time.sleep(REPLY_SECONDS)
        else:
            idle = time.monotonic() - self._busy
            self._tell(idle)
            time.sleep(min(seconds, max(SHORTEST, SHARE * idle)))

    def _tell(self, idle: float) -> None:
        """Report a long idle time once."""
        if idle > QUIET_SECONDS and not self._quiet:
            self._quiet = True
            minutes = f"{idle / 60:.0f} minutes"
            say(f"connected, but without a message for {minutes}: no run is active, or no run needs this site")


def main() -> None:
    """`flower-supernode`, with the same options as Flower's command."""
    if file := os.environ.get(FLOWER_LOG):
        explain_what_follows(None if file == "-" else Path(file))
    command = importlib.import_module("flwr.supernode.cli.flower_supernode")
    if options := os.environ.get(superexec.VARIABLE):
        start_api = command._start_supernode_http_api
        command.__dict__["_start_supernode_http_api"] = partial(_with_superexec, start_api, options.split("\n"))
    flower = importlib.import_module("flwr.supernode.start_client_internal")
    if mistake := unlike(flower):
        print(
            f"fedmosaic: this version of Flower is different ({mistake}), so its SuperNode keeps Flower's waits",
            file=sys.stderr,
        )
    else:
        narrow(flower)
    sys.exit(command.flower_supernode())


def _with_superexec(start_api: Callable[..., Any], options: Sequence[str], *given: Any) -> Any:
    """Start the SuperExec only after this process has the port, because another owner of the port could send forged
    tasks."""
    started = start_api(*given)
    superexec.start(options)
    return started


def narrow(flower: ModuleType) -> None:
    """Replace the functions of the module that wait."""
    replaced = {
        "time": Waits(),
        "pull_objects": partial(vars(flower)["pull_objects"], **PARTS),
        "_make_fleet_connection_retry_invoker": patient(vars(flower)["_make_fleet_connection_retry_invoker"]),
    }
    for name, ours in replaced.items():
        setattr(flower, name, ours)


def patient(make: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the function that makes Flower's retry rules. The new rules also retry for a while after a refused key."""

    def made(**options: Any) -> Any:
        rules, refused = make(**options), Refusals()
        gives_up = rules.should_giveup
        rules.should_giveup = lambda error: not refused.bears(error) and gives_up(error)
        return rules

    return made


class Refusals:
    """The refusals of a node's key, from the first one."""

    def __init__(self) -> None:
        self._until = 0.0

    def bears(self, error: Any) -> bool:
        """Whether an error of gRPC is a refusal that may pass with time."""
        if f'"code": {REFUSED}' not in str(error.details()):
            return False
        if not self._until:
            self._until = time.monotonic() + REFUSED_SECONDS
            say(f"{REFUSED_KEY} This node tries again for {REFUSED_SECONDS:.0f} s.")
        return time.monotonic() < self._until


def unlike(flower: ModuleType) -> str:
    """The difference between the installed module and the module whose waits are known, or "" if there is none."""
    tree = ast.parse(inspect.getsource(flower))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"]
    waits = sorted(map(ast.unparse, calls))
    if waits != FLOWERS:
        return f"it waits with {', '.join(waits) or 'other functions'}"
    if sum(isinstance(node, ast.Name) and node.id == "time" for node in ast.walk(tree)) != len(calls):
        return "it uses the module time for more than sleeping"
    if not hasattr(flower, "_make_fleet_connection_retry_invoker"):
        return "it has other retry rules"
    taken = inspect.signature(flower.pull_objects).parameters if hasattr(flower, "pull_objects") else {}
    return "it pulls the parts of messages in another way" if PARTS.keys() - set(taken) else ""
