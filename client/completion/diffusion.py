"""Generates images from text with any text-to-image pipeline of diffusers.

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
    """A pipeline with the number of steps and the guidance that its options set."""

    def __init__(self, pipeline: Any, options: "Diffusion") -> None:
        self.pipeline, self.options = pipeline, options

    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """The images. The noise of each image is drawn with its own seed."""
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
    """Generates images from text with a pipeline of diffusers."""

    from_prompt: ClassVar[bool] = True

    model: str = "birds-diffusion"
    """Name of a text-to-image pipeline of diffusers."""
    steps: int = Field(20, ge=1)
    """Number of steps of the sampler."""
    guidance: float = Field(3.0, ge=1)
    """Guidance scale: the influence of the prompt on the image. 1: no guidance, as in training."""

    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """ "A photo of {class name}, a kind of {kind}, {caption}." (2.2)"""
        if source is not None and not isinstance(source, str):
            raise ValueError(f"a text is needed, not {type(source).__name__}")
        return f"{subject(label, kind)}, {source}." if source else f"{subject(label, kind)}."

    def load(self, modality: Modality, device: str) -> DiffusionGenerator:
        """The generator with the pipeline from the model's folder."""
        folder = locate(self.model)
        return DiffusionGenerator(_load(folder, fingerprint(folder), device), self)


@lru_cache(maxsize=1)
def _load(folder: Path, content: str, device: str) -> Any:
    return model_door.pipeline(folder, device)
