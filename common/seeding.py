"""Random numbers as a pure function of a seed and a purpose.

No code of the project draws from global random state, except within `seeded`. Code that needs random numbers states the
purpose, e.g. `rng(seed, "partition")` on the command line or `torch_rng(seed, "order", round, site)` on a client. The
same purpose gives the same numbers in every process, with every engine and in every order of execution.
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
def seeded(seed: int, *purpose: str | int, device: torch.device | None = None) -> Iterator[None]:
    """A context that seeds torch's global state for one purpose, for library code that draws from it: the state of the
    CPU, and of a GPU if it is given. The previous state is restored afterwards.

    `torch.manual_seed` would give the same numbers, but it searches for every kind of accelerator each time.
    """
    generators = [torch.default_generator, *_generators(device)]
    before = [generator.get_state() for generator in generators]
    for generator in generators:
        generator.manual_seed(derive(seed, *purpose))
    try:
        yield
    finally:
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)


def _generators(device: torch.device | None) -> list[torch.Generator]:
    """The global generators of a device other than the CPU."""
    if device is None or device.type not in ("cuda", "mps"):
        return []
    if device.type == "mps":
        return [torch.mps._get_default_mps_generator()]
    torch.cuda.init()  # type: ignore[no-untyped-call]
    return [torch.cuda.default_generators[device.index or 0]]
