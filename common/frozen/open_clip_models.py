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

    def resized(self, picture: Image.Image) -> Image.Image:
        """A picture in the size of the model's input, before its values are scaled."""
        from torchvision.transforms import Compose

        small: Image.Image = Compose(self.preprocess.transforms[:-2])(picture.convert("RGB"))
        return small

    @property
    def scale(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of values from 0 to 1, by channel."""
        normalise = self.preprocess.transforms[-1]  # after the step that makes a tensor
        return tuple(map(float, normalise.mean)), tuple(map(float, normalise.std))

    @property
    def image_network(self) -> Any:
        """The image tower."""
        return self.model.visual

    @property
    def text_network(self) -> Any:
        """The text tower. Models of the first kind have its parts in themselves."""
        return getattr(self.model, "text", self.model)

    def without_pictures(self) -> "OpenClip":
        """The model without its image tower, in place."""
        for part in ("visual", "logit_scale"):
            if self.text_network is self.model:
                delattr(self.model, part)
        return self

    def of_texts(self, ids: Tensor) -> Any:
        """text_features [B, E], and a list text_intermediates with the outputs [B, L, D] of the last block."""
        if self.text_network is not self.model:
            return self.text_network.forward_intermediates(
                ids, indices=1, normalize_intermediates=True, output_fmt="NLC"
            )
        return self.model.forward_intermediates(text=ids, text_indices=1, normalize=False, normalize_intermediates=True)

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


def new_open_clip(name: str, weights: bool = True) -> OpenClip:
    """The model with this name in an object of its own, which the caller may change. weights: whether the model can
    compute; if not, it takes no memory.

    Raises ModelError.
    """
    folder = locate(name)
    return OpenClip(folder, *open_clip_model(folder, "cpu" if weights else "meta"))


@lru_cache(maxsize=4)
def _load(folder: Path, content: str, device: str) -> OpenClip:
    return OpenClip(folder, *open_clip_model(folder, device))
