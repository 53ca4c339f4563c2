"""Faults inside a real client process. Python imports this module by itself when its folder is on PYTHONPATH.

The file that $FAULTS names says, in JSON, by site and round what goes wrong: {"b": {"2": "nan"}}.
"""

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


class SpoilSite(importlib.abc.MetaPathFinder):
    """Changes the class of `client.site` when that is imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "client.site":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        run = spec.loader.exec_module

        def run_and_spoil(module: ModuleType) -> None:
            run(module)
            spoil(module.Site)

        spec.loader.exec_module = run_and_spoil  # type: ignore[method-assign]
        return spec


def spoil(site: Any) -> None:
    honest = site.answer

    def answer(self: Any, message: Any) -> Any:
        from common.exchange import wire

        plan = json.loads(Path(os.environ["FAULTS"]).read_text())
        fault = plan.get(self._name, {}).get(str(wire.read_body(message).get("round")))
        if fault == "raise":
            raise ZeroDivisionError("a mistake of the client's code")
        if fault == "worker killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "client killed":
            kill_client()
        if fault == "slow":
            time.sleep(60)
        reply = honest(self, message)
        if fault in SPOILED:
            params = wire.unpack(reply.array_records["params"])
            reply["params"] = wire.pack({name: SPOILED[fault](value) for name, value in params.items()})
        return reply

    site.answer = answer


def kill_client() -> None:
    """Kill the process for whom the resident worker, which this is, works: what its node has started."""
    owner = json.loads(sys.argv[1])["owner"]
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == owner and b"flwr-clientapp" in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)
        except OSError:
            continue
    time.sleep(60)  # or the answer would be there before the end is noticed


SPOILED: dict[str, Any] = {
    "nan": lambda value: value * float("nan"),
    "shape": lambda value: value.reshape(-1, 1),
    "oversized": lambda value: value.repeat(40, *[1] * (value.dim() - 1)),
}
"""What becomes of every parameter."""

if "FAULTS" in os.environ:
    sys.meta_path.insert(0, SpoilSite())
