"""The public corpus: drawn birds with captions. It contains no species of birds-mini."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from common.datasets.birds.captions import caption, description
from common.datasets.birds.drawing import SIZE, Scene, picture, random_scene
from common.datasets.birds.species import SYLLABLES, Bird, public_bird
from common.seeding import rng

PROMPTED = 0.3
"""Share of the captions in the form of completion's prompts, with an invented name."""


@dataclass(frozen=True)
class Corpus:
    """Birds, their scenes and their pictures, uint8 [N, 64, 64, 3]. Each call of `captions` makes new captions."""

    birds: list[Bird]
    scenes: list[Scene]
    pictures: NDArray[np.uint8]

    def captions(
        self, size: int, steps: int, tokenizer: PreTrainedTokenizerFast, length: int, seed: int, emptied: float = 0.0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `steps` batches: indices [B] of birds, and their captions as token ids [B, length].

        emptied: share of empty captions.
        """
        for step in range(steps):
            draw = rng(seed, "batch", step)
            chosen = draw.choice(len(self.birds), size, replace=False)
            texts = [said_of(self.birds[i], self.scenes[i], draw) for i in chosen]
            texts = ["" if draw.random() < emptied else text for text in texts]
            ids = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            yield torch.from_numpy(chosen), ids.input_ids


def make_corpus(size: int, seed: int) -> Corpus:
    """The first `size` birds of a seed."""
    birds, scenes = [], []
    pictures = np.empty((size, SIZE, SIZE, 3), np.uint8)
    for i in range(size):
        draw = rng(seed, "public", i)
        birds.append(public_bird(draw))
        scenes.append(random_scene(draw))
        pictures[i] = picture(birds[-1], scenes[-1])
    return Corpus(birds, scenes, pictures)


def said_of(bird: Bird, scene: Scene, draw: np.random.Generator) -> str:
    """A caption, or sometimes a caption in the form of completion's prompts."""
    if draw.random() >= PROMPTED:
        return caption(bird, scene, draw)
    name = "".join(draw.choice(SYLLABLES, size=2)) + f" {bird.kind}"
    return f"a photo of {name} a kind of {bird.kind} which has {description(bird, scene, draw)}"


def pixels(pictures: NDArray[np.uint8]) -> Tensor:
    """Pictures uint8 [B, H, W, 3] as floats [B, 3, H, W] from -1 to 1."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
