"""Models of open_clip, such as CLIP and CoCa, from a folder, with preprocessing and tokenizer.

G. Ilharco et al., "OpenCLIP", 2021, https://github.com/mlfoundations/open_clip.

The import of open_clip takes seconds, so it is imported only when a model is loaded. A client with cached features does
not load a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from common.frozen.model_door import open_clip_model
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw


@dataclass(frozen=True)
class OpenClip:
    """A frozen model in eval mode. folder: the model's folder."""

    folder: Path
    model: Any
    preprocess: Any
    tokenizer: Any

    def embed(self, values: Sequence[Raw]) -> Tensor:
        """Unit vectors [B, E] of images or texts, in the space that both share.

        Raises ValueError for other kinds of values, and for a mixture of both kinds.
        """
        images = [value for value in values if isinstance(value, Image.Image)]
        texts = [value for value in values if isinstance(value, str)]
        if len(images) == len(values):
            return self.embed_images(torch.stack([self.pixels(image) for image in images]))
        if len(texts) == len(values):
            return self.embed_texts(self.ids(texts))
        raise ValueError(f"images or texts are needed, not {', '.join(sorted({type(v).__name__ for v in values}))}")

    def pixels(self, picture: Image.Image) -> Tensor:
        """A picture as the model's input [3, H, W]."""
        pixels: Tensor = self.preprocess(picture.convert("RGB"))
        return pixels

    def ids(self, texts: list[str]) -> Tensor:
        """Token ids [B, context length]."""
        ids: Tensor = self.tokenizer(texts)
        return ids

    @torch.no_grad()
    def embed_images(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> unit vectors [B, E] in the space that images and texts share."""
        vectors: Tensor = self.model.encode_image(pixels.to(self.device), normalize=True).float()
        return vectors

    @torch.no_grad()
    def embed_texts(self, ids: Tensor) -> Tensor:
        """[B, L] -> unit vectors [B, E] in the space that images and texts share."""
        vectors: Tensor = self.model.encode_text(ids.to(self.device), normalize=True).float()
        return vectors

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        device: torch.device = next(self.model.parameters()).device
        return device


def load_open_clip(name: str, device: str = "cpu") -> OpenClip:
    """The model with this name, see `common.frozen.pretrained`.

    Raises ModelError.
    """
    folder = locate(name)
    return _load(folder, fingerprint(folder), device)


@lru_cache(maxsize=4)
def _load(folder: Path, content: str, device: str) -> OpenClip:
    return OpenClip(folder, *open_clip_model(folder, device))
