"""Flower's SuperNode with its fixed waits narrowed, as far as Flower is the version these were found in.

Flower 1.39 waits, by hand-written sleeps without a setting, in `flwr/supernode/start_client_internal.py`:

- 3 s whenever the SuperLink has no message. Here: a tenth of the time for which there has been nothing to do, at least
  0.1 s and never more than Flower's 3 s. So a message waits for at most a tenth of what went before it, and the
  SuperLink of many idle nodes is asked no more often than by Flower.
- 0.5 s between looks for the ClientApp's reply, which lies in this very process. Here: 0.02 s.
- 1 s, then 2, 4, 8 and 10 s, for a part of a message that the server has announced and not yet sent, which is the rule
  for a node that asks often. Here: 0.05 s, growing to 0.2 s.
"""

import ast
import importlib
import inspect
import sys
import time
from functools import partial
from types import ModuleType

from common.flower_parts import PARTS

NOTHING, REPLY = 3, 0.5
"""Seconds that Flower waits when there is no message, and for a reply or a part of one."""
FLOWERS = [f"time.sleep({seconds})" for seconds in (REPLY, REPLY, NOTHING)]
SHARE, SHORTEST = 0.1, 0.1
REPLY_SECONDS = 0.02


class Waits:
    """In place of the module `time` in a module that only sleeps."""

    def __init__(self) -> None:
        self._busy = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """What Flower means by so many seconds, but shorter."""
        if seconds == REPLY:
            self._busy = time.monotonic()
            time.sleep(REPLY_SECONDS)
        else:
            time.sleep(min(seconds, max(SHORTEST, SHARE * (time.monotonic() - self._busy))))


def main() -> None:
    """`flower-supernode`, with the options of Flower's."""
    command = importlib.import_module("flwr.supernode.cli.flower_supernode")
    flower = importlib.import_module("flwr.supernode.start_client_internal")
    if mistake := unlike(flower):
        print(f"fedmosaic: this Flower is another one ({mistake}): its SuperNode's own waits hold", file=sys.stderr)
    else:
        narrow(flower)
    sys.exit(command.flower_supernode())


def narrow(flower: ModuleType) -> None:
    """Replace what the module waits with."""
    replaced = {"time": Waits(), "pull_objects": partial(vars(flower)["pull_objects"], **PARTS)}
    for name, ours in replaced.items():
        setattr(flower, name, ours)


def unlike(flower: ModuleType) -> str:
    """How the module differs from the one whose waits are known; "" if it does not."""
    tree = ast.parse(inspect.getsource(flower))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep"]
    waits = sorted(map(ast.unparse, calls))
    if waits != FLOWERS:
        return f"it waits by {', '.join(waits) or 'other means'}"
    if sum(isinstance(node, ast.Name) and node.id == "time" for node in ast.walk(tree)) != len(calls):
        return "it uses the time for more than to sleep"
    taken = inspect.signature(flower.pull_objects).parameters if hasattr(flower, "pull_objects") else {}
    return "it pulls the parts of messages in another way" if PARTS.keys() - set(taken) else ""
