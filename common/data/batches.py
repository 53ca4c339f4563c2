"""Cuts examples into batches and moves them to the device of the model."""

from collections.abc import Iterator

import torch

from common.types import CPU, Batch


def batches(
    examples: Batch, size: int, device: torch.device = CPU, order: torch.Generator | None = None
) -> Iterator[Batch]:
    """The examples in batches of `size` on a device, shuffled by `order` if given. The last batch may be smaller.
    Without examples there are no batches."""
    index = torch.arange(len(examples)) if order is None else torch.randperm(len(examples), generator=order)
    for chosen in torch.split(index, size) if len(examples) else ():
        yield examples.rows(chosen).gathered().to(device)
