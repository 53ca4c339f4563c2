"""Models of open_clip from a folder: CLIP, CoCa and their kin, with preprocessing and tokenizer.

G. Ilharco et al., "OpenCLIP", 2021, https://github.com/mlfoundations/open_clip.

open_clip itself takes seconds to import, so that is left to whoever really loads a model: a client whose features are
cached does not.
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
    """A frozen model in eval mode. folder: where it lies."""

    folder: Path
    model: Any
    preprocess: Any
    tokenizer: Any

    def embed(self, values: Sequence[Raw]) -> Tensor:
        """Images, or texts, as unit vectors [B, E] in the space that both share.

        Raises ValueError for values of another kind, or of both kinds.
        """
        images = [value for value in values if isinstance(value, Image.Image)]
        texts = [value for value in values if isinstance(value, str)]
        if len(images) == len(values):
            return self.embed_images(torch.stack([self.pixels(image) for image in images]))
        if len(texts) == len(values):
            return self.embed_texts(self.ids(texts))
        raise ValueError(f"images or texts are needed, not {', '.join(sorted({type(v).__name__ for v in values}))}")

    def pixels(self, picture: Image.Image) -> Tensor:
        """[3, H, W] as the model wants them."""
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
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device


def load_open_clip(name: str, device: str = "cpu") -> OpenClip:
    """The model of a name, see `common.frozen.pretrained`.

    Raises ModelError.
    """
    folder = locate(name)
    return _load(folder, fingerprint(folder), device)


@lru_cache(maxsize=4)
def _load(folder: Path, content: str, device: str) -> OpenClip:
    return OpenClip(folder, *open_clip_model(folder, device))
