"""The text tower of a CLIP or CoCa model of open_clip."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Tower
from common.encoders.shared.tower_options import TowerOptions
from common.errors import ModelError
from common.frozen.model_door import open_clip_config
from common.frozen.open_clip_models import OpenClip, load_open_clip, new_open_clip
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw

PADDING = 0
"""The padding id of all open_clip tokenizers. A model's `pad_id` in its config overrides it."""


class OpenClipTextTower(Tower):
    """The pooled features are in the space that images and texts share. The tokens are the outputs of the last
    block."""

    def __init__(self, loaded: OpenClip, width: int, length: int) -> None:
        self.loaded, self.width, self.length = loaded, width, length
        self._network = loaded.text_network
        self.padding = open_clip_config(loaded.folder)["text_cfg"].get("pad_id", PADDING)

    @property
    def network(self) -> nn.Module:
        """The text tower, or the whole model if it has none of its own."""
        network: nn.Module = self._network
        return network

    def inputs(self, raw: Raw) -> Tensor:
        """The token ids [context length]."""
        if not isinstance(raw, str):
            raise ValueError(f"a text is needed, not {type(raw).__name__}")
        return self.loaded.ids([raw])[0]

    def blank(self) -> Tensor:
        """[context length] of zeros, int64."""
        return torch.zeros(self.length, dtype=torch.int64)

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, context length, D] and their mask. The narrower of the two is padded with
        zeros."""
        found = self.loaded.of_texts(inputs)
        tokens = found["text_intermediates"][-1]
        pooled = F.pad(found["text_features"], (0, self.width - found["text_features"].shape[-1]))
        return pooled, F.pad(tokens, (0, self.width - tokens.shape[-1])), inputs != self.padding


class OpenClipText(TowerOptions):
    """Texts pass through the text tower of a pre-trained CLIP or CoCa model of open_clip."""

    model: str = "birds-coca"
    """Name of a pre-trained model, see `common.frozen.pretrained`."""

    def shape(self) -> tuple[int, int]:
        """The larger of the widths of the shared space and of the tower, and the context length."""
        folder = locate(self.model)
        config = open_clip_config(folder)
        try:
            text = config["text_cfg"]
            return max(config["embed_dim"], text["width"]), text.get("context_length", 77)
        except (KeyError, TypeError):
            raise ModelError(f"{folder}: its text tower is not a transformer of open_clip") from None

    def load(self, weights: bool = True) -> OpenClipTextTower:
        """A new tower."""
        return OpenClipTextTower(new_open_clip(self.model, weights).without_pictures(), *self.shape())

    def kept(self) -> OpenClipTextTower:
        """A tower of the model that the process keeps, which also serves pictures and completers."""
        return OpenClipTextTower(load_open_clip(self.model), *self.shape())

    def described(self) -> str:
        """A text with a hash of the model's folder, which contains weights and tokenizer."""
        return f"open-clip-text {fingerprint(locate(self.model))}"
