"""A frozen text encoder of the transformers library, such as BERT or the text tower of CLIP.

T. Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", EMNLP 2020. The library is imported only
when a model is loaded. A client with cached features does not load a model.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import EncoderOptions, FrozenEncoder, Tower
from common.errors import ModelError
from common.frozen.model_door import text_model
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw


class TransformersTextTower(Tower):
    """The pooled features are the model's own (BERT: from the first token, CLIP: from the last token), or the mean of
    the tokens. The tokens are the outputs of the last layer."""

    def __init__(self, model: Any, tokenizer: Any, length: int) -> None:
        self.model, self.tokenizer, self.length = model, tokenizer, length

    @property
    def network(self) -> nn.Module:
        """The model of transformers."""
        network: nn.Module = self.model
        return network

    def inputs(self, raw: Raw) -> Tensor:
        """[2, length]: the token ids, and a mask with 1 for tokens that are not padding."""
        if not isinstance(raw, str):
            raise ValueError(f"a text is needed, not {type(raw).__name__}")
        found = self.tokenizer(raw, padding="max_length", truncation=True, max_length=self.length, return_tensors="pt")
        return torch.cat([found.input_ids, found.attention_mask])

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, length, D] and their mask."""
        ids, real = inputs.unbind(1)
        found = self.model(input_ids=ids, attention_mask=real)
        tokens: Tensor = found.last_hidden_state
        pooled = getattr(found, "pooler_output", None)
        if pooled is None:
            pooled = (tokens * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True).clamp_min(1)
        return pooled, F.pad(tokens, (0, 0, 0, self.length - tokens.shape[1])), real.bool()


class TransformersTextEncoder(FrozenEncoder):
    """Frozen features of texts."""

    def __init__(self, options: "TransformersText") -> None:
        self.folder = locate(options.model)
        super().__init__(_width(self.folder), options.length)
        self.options = options

    @property
    def tower(self) -> TransformersTextTower:
        """The tower. The process keeps it after the first load."""
        return _load(self.folder, fingerprint(self.folder), self.length)

    def described(self) -> str:
        """A text with the length and a hash of the model's folder, which contains weights and tokenizer."""
        return f"transformers-text length {self.length} {fingerprint(self.folder)}"


class TransformersText(EncoderOptions):
    """Texts pass through a frozen model of the transformers library."""

    model: str
    """Name of a frozen model, see `common.frozen.pretrained`."""
    length: int = Field(64, ge=4, le=8192)
    """Maximum number of tokens per text. Further tokens are cut off."""

    def build(self) -> TransformersTextEncoder:
        """The encoder for this model."""
        return TransformersTextEncoder(self)


def _width(folder: Path) -> int:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(config["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder}: config.json has no hidden_size of a text encoder: {error}") from None


@lru_cache(maxsize=2)
def _load(folder: Path, content: str, length: int) -> TransformersTextTower:
    return TransformersTextTower(*text_model(folder), length)
