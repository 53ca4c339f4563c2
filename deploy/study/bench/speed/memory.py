"""The growth of the ServerApp's memory with the number of clients."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from common.errors import RunError
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample

FEW, MANY = 4, 16


class Memory(Measurement):
    """Peak resident memory of a new process that aggregates the replies of 4 or 16 clients. Each reply has its own
    memory, as if it came over the network.

    Stock: FedAvg.aggregate_train over all replies, which is how Flower's Grid.send_and_receive delivers them. Ours: a
    whole round of `Federation`, with model and checkpoint on disk, over a grid that delivers replies on request.
    """

    name: ClassVar[str] = "memory"
    what: ClassVar[str] = "growth of the ServerApp's peak memory from 4 to 16 clients, 100 MB model"
    unit: ClassVar[str] = "growth / peak with 4"
    ratio: ClassVar[str] = "ours"
    goal: ClassVar[Goal] = Goal("at most", 0.1)

    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Yield the growths. Raises RunError when a process fails."""
        megabytes = 1 if self.small else 100
        for repeat in range(repeats):
            peaks = {
                (kind, clients): _peak(kind, clients, megabytes, work / f"{kind}-{clients}-{repeat}")
                for kind in ("stock", "ours")
                for clients in (FEW, MANY)
            }
            stock, ours = (peaks[kind, MANY] / peaks[kind, FEW] - 1 for kind in ("stock", "ours"))
            yield Sample(stock, ours, ours)


def _peak(kind: str, clients: int, megabytes: int, work: Path) -> int:
    """The peak memory in kilobytes."""
    command = [
        sys.executable,
        "-m",
        "deploy.study.bench.speed.memory_process",
        kind,
        str(clients),
        str(megabytes),
        str(work),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RunError(f"{kind} with {clients} clients: {done.stderr[-800:]}")
    return int(done.stdout)
