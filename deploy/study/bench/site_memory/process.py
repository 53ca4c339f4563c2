"""A site that prepares its shard and trains one epoch, and prints its memory as JSON. Argument: the shard's folder."""

import json
import sys
import threading
import time
from pathlib import Path

from client.site import Site
from client.train import train
from common.hardware.computing import compute_deterministically
from deploy.study.bench.site_memory.examples import experiment

SECONDS = 0.05
"""Interval of the samples."""


class Peak(threading.Thread):
    """Samples the memory of this process in megabytes. private: memory that the system cannot take back (RssAnon).
    whole: all resident memory, which includes the mapped pages of files (VmRSS)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.private = self.whole = 0.0

    def run(self) -> None:
        """Sample until the process ends."""
        while True:
            found = memory()
            self.private, self.whole = max(self.private, found["RssAnon"]), max(self.whole, found["VmRSS"])
            time.sleep(SECONDS)


def memory() -> dict[str, float]:
    """The sizes of this process in megabytes, by the names of /proc/self/status."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    return {line[0].rstrip(":"): int(line[1]) * 1024 / 1e6 for line in lines if line[2:] == ["kB"]}


def main(folder: Path) -> None:
    """Prepare, train, print."""
    compute_deterministically()
    chosen, started = experiment(), time.perf_counter()
    before = memory()["RssAnon"]
    peak = Peak()
    peak.start()
    here = Site(folder).open(chosen)
    prepared = time.perf_counter()
    training, _ = here.loaded.split(chosen.data.validation, chosen.seed)
    train(here.model, training, chosen, 1, "bench")
    figures = {
        "before": before,
        "private": peak.private,
        "whole": peak.whole,
        "prepare_seconds": prepared - started,
        "train_seconds": time.perf_counter() - prepared,
        "cache": sum(file.stat().st_size for file in folder.glob("cache/*")) / 1e6,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
