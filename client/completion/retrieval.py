"""Takes the missing value from a public pool: the value that is most similar to the example's source by CLIP.

A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://arxiv.org/abs/2103.00020.
"""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor

from client.completion.base import CompleterOptions, Generator, Request, subject
from common.config.component import build, names
from common.data.shard import Example, Shard
from common.errors import ShardError
from common.frozen.open_clip_models import OpenClip, load_open_clip
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw, Value
from common.modality import Modality

CHUNK = 64


class RetrievalGenerator(Generator):
    """Finds the nearest values of a pool. pool: its N values. vectors: their CLIP vectors [N, E]."""

    def __init__(self, loaded: OpenClip, pool: Sequence[Raw], vectors: Tensor) -> None:
        self.loaded, self.pool, self.vectors = loaded, pool, vectors

    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """The nearest values, the most similar first. The query is the prompt if the source is a text, else the source
        image."""
        asked = [request.prompt if isinstance(request.source, str) else request.source for request in requests]
        count = min(len(self.pool), max(len(request.seeds) for request in requests))
        found = (self.loaded.embed(asked) @ self.vectors.T).topk(count).indices.tolist()
        return [[self.pool[i] for i in row[: len(request.seeds)]]
                for request, row in zip(requests, found, strict=True)]  # fmt: skip


class Retrieval(CompleterOptions):
    """Takes the nearest value of a public pool."""

    from_prompt: ClassVar[bool] = True

    pool: str
    """Folder of a shard with public examples, or name of a data set, whose training part is the pool."""
    model: str = "birds-coca"
    """Name of a CLIP or CoCa model of open_clip."""

    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """ "A photo of {class name}, a kind of {kind}, {caption}." (2.2). For an image source, the query is the image
        itself."""
        return f"{subject(label, kind)}, {source}." if isinstance(source, str) else f"{subject(label, kind)}."

    def load(self, modality: Modality, device: str) -> RetrievalGenerator:
        """The generator with the loaded model and the pool's values and vectors.

        Raises ModelError, and ShardError when the pool has no values of the modality.
        """
        return _load(self.pool, modality, self.model, fingerprint(locate(self.model)), device)


@lru_cache(maxsize=2)
def _load(pool: str, modality: Modality, model: str, content: str, device: str) -> RetrievalGenerator:
    values = _of_data_set(pool, modality) if pool in names("data set") else _of_shard(pool, modality)
    if not values:
        raise ShardError(f"pool {pool}: no example has {modality}")
    loaded = load_open_clip(model, device)
    parts = [loaded.embed(values[start : start + CHUNK]) for start in range(0, len(values), CHUNK)]
    return RetrievalGenerator(loaded, values, torch.cat(parts))


def _of_shard(folder: str, modality: Modality) -> list[Raw]:
    shard = Shard.open(Path(folder))
    return [Value(record.value(modality)).read() for record in shard.records if record.has(modality)]


def _of_data_set(name: str, modality: Modality) -> list[Raw]:
    examples: list[Example] = build("data set", {"name": name}).examples("train", 0)
    return [_decoded(example, modality) for example in examples if modality in example.media]


def _decoded(example: Example, modality: Modality) -> Raw:
    media = example.media[modality]
    content = media.read()
    if not media.suffix:
        return content.decode()
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture.copy()
