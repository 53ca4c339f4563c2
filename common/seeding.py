"""Randomness as a pure function of what it is for.

Nothing in the project draws from global random state: whoever needs randomness names its purpose, e.g.
`rng(seed, "partition")` on the command line or `torch_rng(seed, "order", round, site)` on a client. The same names give
the same numbers in every process, engine and order of execution.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose."""
    text = "\x1f".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *purpose: str | int) -> np.random.Generator:
    """A NumPy generator for one purpose."""
    return np.random.default_rng(derive(seed, *purpose))


def torch_rng(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU torch generator for one purpose."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Code of others that draws from torch's global CPU state draws for one purpose; the state is put back after it.

    `torch.manual_seed` would give the same numbers, but looks for every kind of accelerator each time.
    """
    generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(derive(seed, *purpose))
    try:
        yield
    finally:
        generator.set_state(before)
