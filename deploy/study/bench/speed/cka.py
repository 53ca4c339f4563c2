"""CKA of all clients at once, compared with CKA pair by pair."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from common.errors import RunError
from common.seeding import torch_rng
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample
from server.aggregation.similarity import linear_cka

EVERY = 10
"""Every tenth pair is computed and timed alone, because all pairs cost the same."""
CLOSE = 1e-6


class CKA(Measurement):
    """Similarity of 100 clients on 512 probes with 512 features, float64, on one thread."""

    name: ClassVar[str] = "cka"
    what: ClassVar[str] = "CKA of 100 clients, 512 probes, 512-d; stock: pair by pair"
    unit: ClassVar[str] = "s"
    ratio: ClassVar[str] = "stock / ours"
    goal: ClassVar[Goal] = Goal("at least", 20)

    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Yield the times. Raises RunError when the values differ by more than 1e-6."""
        clients, probes, width = (12, 16, 8) if self.small else (100, 512, 512)
        pairs = [(i, j) for i in range(clients) for j in range(i)]
        for repeat in range(repeats):
            seen = torch.randn(clients, probes, width, generator=torch_rng(repeat, "bench cka"))
            started = time.perf_counter()
            similarity = linear_cka(seen)
            ours = time.perf_counter() - started
            chosen = pairs[repeat % EVERY :: EVERY]
            started = time.perf_counter()
            values = [_pair(seen[i], seen[j]) for i, j in chosen]
            stock = (time.perf_counter() - started) * len(pairs) / len(chosen)
            apart = max(abs(value - float(similarity[i, j])) for value, (i, j) in zip(values, chosen, strict=True))
            if apart > CLOSE:
                raise RunError(f"CKA of all pairs at once and pair by pair differ by {apart:.3g}")
            yield Sample(stock, ours, stock / ours)


def _pair(x: Tensor, y: Tensor) -> float:
    """CKA of two models' representations [P, R]."""
    k, other = _gram(x), _gram(y)
    return float((k * other).sum() / (k.norm() * other.norm()))


def _gram(x: Tensor) -> Tensor:
    rows = F.normalize(x.double(), dim=1)
    centred = rows - rows.mean(0)
    return centred @ centred.T
