"""Text -> image by any text-to-image pipeline of diffusers.

P. von Platen et al., "Diffusers: State-of-the-art diffusion models", 2022, https://github.com/huggingface/diffusers.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field

from client.completion.base import CompleterOptions, Generator, Request, subject
from common.frozen import model_door
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw
from common.modality import Modality


class DiffusionGenerator(Generator):
    """A pipeline with the number of steps and the guidance of its options."""

    def __init__(self, pipeline: Any, options: "Diffusion") -> None:
        self.pipeline, self.options = pipeline, options

    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """Images; the noise of each is drawn by a generator of its own."""
        counts = [len(request.seeds) for request in requests]
        made: list[Raw] = self.pipeline(
            [request.prompt for request in requests for _ in request.seeds],
            generator=[torch.Generator().manual_seed(seed) for request in requests for seed in request.seeds],
            num_inference_steps=self.options.steps,
            guidance_scale=self.options.guidance,
        ).images
        ends = torch.tensor(counts).cumsum(0).tolist()
        return [made[end - count : end] for count, end in zip(counts, ends, strict=True)]


class Diffusion(CompleterOptions):
    """Text -> image by a pipeline of diffusers."""

    from_prompt: ClassVar[bool] = True

    model: str = "birds-diffusion"
    """A text-to-image pipeline of diffusers."""
    steps: int = Field(20, ge=1)
    """Of the sampler."""
    guidance: float = Field(3.0, ge=1)
    """How strongly the prompt counts (1: not more than in training)."""

    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """ "A photo of {class name}, a kind of {kind}, {caption}." (2.2)"""
        if source is not None and not isinstance(source, str):
            raise ValueError(f"a text is needed, not {type(source).__name__}")
        return f"{subject(label, kind)}, {source}." if source else f"{subject(label, kind)}."

    def load(self, modality: Modality, device: str) -> DiffusionGenerator:
        """The pipeline of the folder, whatever its kind."""
        folder = locate(self.model)
        return DiffusionGenerator(_load(folder, fingerprint(folder), device), self)


@lru_cache(maxsize=1)
def _load(folder: Path, content: str, device: str) -> Any:
    return model_door.pipeline(folder, device)
