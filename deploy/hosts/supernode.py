"""Flower's SuperNode with its fixed waits narrowed, as far as Flower is the version these were found in, and with
words for its log.

Flower 1.39 waits, by hand-written sleeps without a setting, in `flwr/supernode/start_client_internal.py`:

- 3 s whenever the SuperLink has no message. Here: a tenth of the time for which there has been nothing to do, at least
  0.1 s and never more than Flower's 3 s. So a message waits for at most a tenth of what went before it, and the
  SuperLink of many idle nodes is asked no more often than by Flower.
- 0.5 s between looks for the ClientApp's reply, which lies in this very process. Here: 0.02 s.
- 1 s, then 2, 4, 8 and 10 s, for a part of a message that the server has announced and not yet sent, which is the rule
  for a node that asks often. Here: 0.05 s, growing to 0.2 s.

Flower ends a node whose key the SuperLink refuses, and a SuperLink refuses a key for a minute after a node that had it
was killed. Here a refused node tries a little longer than that: one that is started again at once is let in, and a run
that waits for it goes on.
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
"""After how long without a message the log says so."""
REFUSED_SECONDS = 75.0
"""How long a refused node goes on trying: a SuperLink counts on a node that was killed for 60 s."""


class Waits:
    """In place of the module `time` in a module that only sleeps."""

    def __init__(self) -> None:
        self._busy, self._quiet = time.monotonic(), False

    def sleep(self, seconds: float) -> None:
        """What Flower means by so many seconds, but shorter."""
        if seconds == REPLY:
            self._busy, self._quiet = time.monotonic(), False
            time.sleep(REPLY_SECONDS)
        else:
            idle = time.monotonic() - self._busy
            self._tell(idle)
            time.sleep(min(seconds, max(SHORTEST, SHARE * idle)))

    def _tell(self, idle: float) -> None:
        """Say once that nothing was asked for long."""
        if idle > QUIET_SECONDS and not self._quiet:
            self._quiet = True
            minutes = f"{idle / 60:.0f} minutes"
            say(f"connected, and not asked for anything for {minutes}: no run is on, or none needs this site")


def main() -> None:
    """`flower-supernode`, with the options of Flower's."""
    if file := os.environ.get(FLOWER_LOG):
        explain_what_follows(None if file == "-" else Path(file))
    command = importlib.import_module("flwr.supernode.cli.flower_supernode")
    if options := os.environ.get(superexec.VARIABLE):
        start_api = command._start_supernode_http_api
        command.__dict__["_start_supernode_http_api"] = partial(_with_superexec, start_api, options.split("\n"))
    flower = importlib.import_module("flwr.supernode.start_client_internal")
    if mistake := unlike(flower):
        print(f"fedmosaic: this Flower is another one ({mistake}): its SuperNode's own waits hold", file=sys.stderr)
    else:
        narrow(flower)
    sys.exit(command.flower_supernode())


def _with_superexec(start_api: Callable[..., Any], options: Sequence[str], *given: Any) -> Any:
    """Start the SuperExec when this process has its port: whoever had it before could give it forged tasks."""
    started = start_api(*given)
    superexec.start(options)
    return started


def narrow(flower: ModuleType) -> None:
    """Replace what the module waits with."""
    replaced = {
        "time": Waits(),
        "pull_objects": partial(vars(flower)["pull_objects"], **PARTS),
        "_make_fleet_connection_retry_invoker": patient(vars(flower)["_make_fleet_connection_retry_invoker"]),
    }
    for name, ours in replaced.items():
        setattr(flower, name, ours)


def patient(make: Callable[..., Any]) -> Callable[..., Any]:
    """What makes the rules by which Flower tries again, so that they do for a while when the node's key is refused."""

    def made(**options: Any) -> Any:
        rules, refused = make(**options), Refusals()
        gives_up = rules.should_giveup
        rules.should_giveup = lambda error: not refused.bears(error) and gives_up(error)
        return rules

    return made


class Refusals:
    """Those of a node's key, from the first on."""

    def __init__(self) -> None:
        self._until = 0.0

    def bears(self, error: Any) -> bool:
        """Whether an error of gRPC is one that may pass."""
        if f'"code": {REFUSED}' not in str(error.details()):
            return False
        if not self._until:
            self._until = time.monotonic() + REFUSED_SECONDS
            say(f"{REFUSED_KEY} This node tries again for {REFUSED_SECONDS:.0f} s.")
        return time.monotonic() < self._until


def unlike(flower: ModuleType) -> str:
    """How the module differs from the one whose waits are known; "" if it does not."""
    tree = ast.parse(inspect.getsource(flower))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"]
    waits = sorted(map(ast.unparse, calls))
    if waits != FLOWERS:
        return f"it waits by {', '.join(waits) or 'other means'}"
    if sum(isinstance(node, ast.Name) and node.id == "time" for node in ast.walk(tree)) != len(calls):
        return "it uses the time for more than to sleep"
    if not hasattr(flower, "_make_fleet_connection_retry_invoker"):
        return "it tries again by other rules"
    taken = inspect.signature(flower.pull_objects).parameters if hasattr(flower, "pull_objects") else {}
    return "it pulls the parts of messages in another way" if PARTS.keys() - set(taken) else ""
