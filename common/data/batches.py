"""Cuts examples into batches and moves them to the device of the model."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from common.rows import Rows
from common.types import CPU, Batch


def batches(
    examples: Batch,
    size: int,
    device: torch.device = CPU,
    order: torch.Generator | None = None,
    change: Callable[[Batch], Batch] | None = None,
    most: int | None = None,
) -> Iterator[Batch]:
    """The examples in batches of `size` on a device, shuffled by `order` if given. The last batch may be smaller.
    Without examples there are no batches.

    change: is applied to each batch before it moves to the device, e.g. an augmentation. It draws from torch's global
    generator, so it runs in the thread of the training. most: the largest number of batches; None: all examples.

    Values that are decoded when they are needed are read ahead by worker processes. For another device than the CPU, a
    thread gathers the next batch while the model uses the current one.

    Raises ShardError when a value that was readable before can no longer be read.
    """
    index = torch.arange(len(examples)) if order is None else torch.randperm(len(examples), generator=order)
    gathered = _gathered(examples, torch.split(index, size)[:most] if len(examples) else ())
    if device == examples.device:
        yield from gathered if change is None else map(change, gathered)
        return
    pinned = device.type == "cuda"
    for batch in _ahead(_pinned(gathered) if pinned else gathered):
        changed = batch if change is None else change(batch)
        yield (changed.pin_memory() if pinned and change is not None else changed).to(device)


def _gathered(examples: Batch, parts: Sequence[Tensor]) -> Iterator[Batch]:
    """One batch per index, with its inputs in memory."""
    if not isinstance(examples.inputs, Rows):
        yield from map(examples.rows, parts)
        return
    for part, inputs in zip(parts, examples.inputs.stream(parts), strict=True):
        yield replace(examples.rows(part), inputs=inputs)


def _pinned(gathered: Iterator[Batch]) -> Iterator[Batch]:
    return (batch.pin_memory() for batch in gathered)


def _ahead(gathered: Iterator[Batch]) -> Iterator[Batch]:
    """The same batches. A thread gathers the next one in advance."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, gathered, None)
        while (batch := coming.result()) is not None:
            coming = thread.submit(next, gathered, None)
            yield batch
