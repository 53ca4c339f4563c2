"""Generates text from images with BLIP-2.

J. Li, D. Li, S. Savarese, S. Hoi, "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and
Large Language Models", ICML 2023, https://arxiv.org/abs/2301.12597. FedMVP's paper uses it too.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from client.completion.base import CompleterOptions, Generator, Request, subject
from common.frozen import model_door
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw
from common.modality import Modality


class Blip2Generator(Generator):
    """With one candidate, the text consists of the most likely tokens and is generated for a whole batch. With several
    candidates, tokens are drawn at random for one example at a time, so a text does not depend on the batch."""

    def __init__(self, model: Any, processor: Any, options: "Blip2") -> None:
        self.model, self.processor, self.options = model, processor, options

    def generate(self, requests: Sequence[Request]) -> list[list[Raw]]:
        """The texts without the prompt, because the prompt contains the label."""
        if self.options.candidates == 1:
            return [[text] for text in self._write(requests, do_sample=False)]
        return [self._drawn(request) for request in requests]

    def _drawn(self, request: Request) -> list[Raw]:
        with torch.random.fork_rng():
            torch.manual_seed(request.seeds[0])
            return [*self._write([request], do_sample=True, top_p=self.options.top_p,
                                 num_return_sequences=len(request.seeds))]  # fmt: skip

    @torch.no_grad()
    def _write(self, requests: Sequence[Request], **how: Any) -> list[str]:
        images = [_picture(request.source) for request in requests]
        prompts = [request.prompt for request in requests]
        inputs = self.processor(images=images, text=prompts, padding=True, return_tensors="pt").to(self.model.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.model.dtype)
        ids = self.model.generate(**inputs, max_new_tokens=self.options.words, **how)
        texts: list[str] = self.processor.batch_decode(_after(inputs["input_ids"], ids), skip_special_tokens=True)
        return [text.strip() for text in texts]


class Blip2(CompleterOptions):
    """Generates text from images with BLIP-2."""

    model: str = "Salesforce/blip2-opt-2.7b"
    """Name of a BLIP-2 model of transformers."""
    words: int = Field(40, ge=1)
    """Maximum number of tokens of a text."""
    top_p: float = Field(0.9, gt=0, le=1)
    """With several candidates, each token is drawn from the most likely tokens whose probabilities sum up to this
    value."""

    def prompt(self, label: str, kind: str, source: Raw | None) -> str:
        """ "A photo of {class name}, a kind of {kind}, which has" (2.2)"""
        return f"{subject(label, kind)}, which has"

    def load(self, modality: Modality, device: str) -> Blip2Generator:
        """The generator with the model and processor from the model's folder."""
        folder = locate(self.model)
        return Blip2Generator(*_load(folder, fingerprint(folder), device), self)


def _picture(source: Raw) -> Image.Image:
    if not isinstance(source, Image.Image):
        raise ValueError(f"an image is needed, not {type(source).__name__}")
    return source.convert("RGB")


def _after(prompts: Tensor, ids: Tensor) -> Tensor:
    """The generated ids without the prompt. Only some language models return the prompt as well."""
    length = prompts.shape[1]
    repeated = prompts.repeat_interleave(len(ids) // len(prompts), 0)
    return ids[:, length:] if torch.equal(ids[:, :length], repeated) else ids


@lru_cache(maxsize=1)
def _load(folder: Path, content: str, device: str) -> tuple[Any, Any]:
    model, processor = model_door.blip2(folder, device)
    processor.tokenizer.padding_side = "left"
    return model, processor
