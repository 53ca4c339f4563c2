"""How the memory of the ServerApp's process grows with the number of clients."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from common.errors import RunError
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample

FEW, MANY = 4, 16


class Memory(Measurement):
    """Peak resident memory of a new process that aggregates replies of 4, and of 16, clients; each reply has memory of
    its own, as if it had come over the network. Stock: FedAvg.aggregate_train over all of them, which is how Flower's
    Grid.send_and_receive hands them over. Ours: a whole round of `Federation`, its model and checkpoint on disk
    included, over a grid that gives replies when they are asked for."""

    name: ClassVar[str] = "memory"
    what: ClassVar[str] = "growth of the ServerApp's peak memory from 4 to 16 clients, 100 MB model"
    unit: ClassVar[str] = "of that with 4"
    ratio: ClassVar[str] = "ours"
    goal: ClassVar[Goal] = Goal("at most", 0.1)

    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Raises RunError when a process fails."""
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
    """Kilobytes."""
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
