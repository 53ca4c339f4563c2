"""Train once and print the figures as JSON. Arguments: our|plain WORKLOAD and the options as JSON.

Each training has a process of its own, because the peak memory of a process cannot be reset, and because the first
steps of a process are slower than later ones.
"""

import json
import resource
import sys
import time
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from client.optimizer import make_optimizer
from client.step import TYPES
from client.train import train
from common.hardware.computing import Hardware
from common.types import Batch
from deploy.study.bench.training.workloads import Workload, workloads


class Stopwatch:
    """The times at the end of the first step and of each epoch. steps: the number of steps per epoch."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self.steps, self.device, self.count = steps, device, 0
        self.first, self.epochs = 0.0, [0.0]
        self.started = time.perf_counter()

    def step(self, *_: object) -> None:
        """Called after each step of an optimiser."""
        self.count += 1
        if self.count == 1:
            self.first = self._now()
        if self.count % self.steps == 0:
            self.epochs.append(self._now())

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - self.started


def ours(workload: Workload, examples: Batch, device: torch.device) -> None:
    """The epochs of our client."""
    train(workload.model().to(device), examples, workload.experiment, 1, "bench")


def plain(workload: Workload, examples: Batch, device: torch.device) -> None:
    """The epochs of a plain loop: batches of rows, the loss, its gradients, the optimiser."""
    settings, module = workload.experiment.train, workload.plain().to(device).train()
    optimizer, kind = make_optimizer(module, settings), TYPES.get(settings.precision)
    scaler = torch.amp.grad_scaler.GradScaler(device.type, enabled=settings.precision == "float16")
    columns, labels = {m: examples.inputs[m] for m in examples.modalities}, examples.labels
    for _ in range(settings.per_round):
        for rows in torch.split(torch.randperm(len(labels)), settings.batch_size):
            inputs = {m: column[rows].to(device, non_blocking=True) for m, column in columns.items()}
            with torch.autocast(device.type, kind or torch.bfloat16, enabled=kind is not None):
                loss = module(inputs, labels[rows].to(device))
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()


def measured(kind: str, name: str, options: dict[str, Any]) -> dict[str, float]:
    """The figures of one training.

    rate: examples per second from the second epoch on. first: seconds until the first step, without imports. memory:
    bytes that the training adds to the process, or on a GPU the peak of the allocated bytes.
    """
    hardware = Hardware(options["device"], options["threads"], options["deterministic"])
    device = hardware.use()
    workload = workloads(
        options["batch_size"], options["epochs"], options["precision"], options["deterministic"], options["small"]
    )[name]
    examples, settings = workload.batch(), workload.experiment.train
    before = _peak(device)
    watch = Stopwatch(-(-workload.examples // settings.batch_size), device)
    register_optimizer_step_post_hook(watch.step)
    (ours if kind == "ours" else plain)(workload, examples, device)
    later = (watch.epochs[-1] - watch.epochs[1]) / (settings.per_round - 1)
    return {"rate": workload.examples / later, "first": watch.first, "memory": _peak(device) - before}


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
