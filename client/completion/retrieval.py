"""The missing value is taken from a public pool: that of the example which CLIP finds most similar to what is there.

A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://arxiv.org/abs/2103.00020.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from client.completion.base import CompleterOptions, Generator, Request
from common.data.media import Raw, Value
from common.data.shard import Shard
from common.errors import ShardError
from common.open_clip_models import OpenClip, load_open_clip
from common.types import Modality

CHUNK = 64


class RetrievalGenerator(Generator):
    """pool: the values of the pool. vectors: [N, E], of the same values."""

    def __init__(self, loaded: OpenClip, pool: Sequence[Value], vectors: Tensor) -> None:
        self.loaded, self.pool, self.vectors = loaded, pool, vectors

    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """The nearest values, the most similar first; all candidates together are the nearest ones."""
        vectors = self.loaded.embed([request.source for request in requests])
        count = min(len(self.pool), max(len(request.seeds) for request in requests))
        found = (vectors @ self.vectors.T).topk(count).indices.tolist()
        return [[self.pool[i].read() for i in row[: len(request.seeds)]]
                for request, row in zip(requests, found, strict=True)]  # fmt: skip


class Retrieval(CompleterOptions):
    """pool: the folder of a shard with public examples; model: a CLIP or CoCa model of open_clip."""

    pool: str
    model: str = "birds-coca"

    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """None: the source alone is compared."""
        return ""

    def load(self, modality: Modality, device: str) -> RetrievalGenerator:
        """The model, and the pool's vectors.

        Raises ModelError, ShardError when the pool has no such values.
        """
        shard = Shard.open(Path(self.pool))
        pool = [Value(record.value(modality)) for record in shard.records if record.has(modality)]
        if not pool:
            raise ShardError(f"shard {self.pool}: the pool has no {modality}")
        loaded = load_open_clip(self.model, device)
        parts = [loaded.embed([value.read() for value in pool[i : i + CHUNK]]) for i in range(0, len(pool), CHUNK)]
        return RetrievalGenerator(loaded, pool, torch.cat(parts))
