"""A text encoder of the transformers library, such as BERT or the text tower of CLIP.

T. Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", EMNLP 2020. The library is imported only
when a model is loaded. A client with cached features does not load a model.
"""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from common.encoders.base import Tower
from common.encoders.shared.tower_options import TowerOptions
from common.errors import ModelError
from common.frozen.model_door import text_model, tokenizer_of
from common.frozen.pretrained import fingerprint, locate
from common.media.values import Raw

WIDTHS = ("hidden_size", "d_model", "dim", "n_embd")
"""The names that models give their hidden size."""
SAMPLE = 16
"""The maximum number of tokens of a text that only shows which weights are used."""
POOLING = "1_Pooling/config.json"
MODES = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}


class TransformersTextTower(Tower):
    """The tokens are the outputs of the last layer. The pooled features are their mean, the first of them, or the
    model's own (BERT: from the first token, CLIP: from the last token)."""

    def __init__(self, model: Any, tokenizer: Any, length: int, pooling: str | None) -> None:
        self.model, self.tokenizer, self.length, self.pooling = model, tokenizer, length, pooling

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

    def blank(self) -> Tensor:
        """[2, length] of zeros, int64."""
        return torch.zeros(2, self.length, dtype=torch.int64)

    def sample(self) -> Tensor:
        """[2, 4 or more] of zeros, int64."""
        return self.blank()[:, :SAMPLE]

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled features [B, D], tokens [B, length, D] and their mask."""
        ids, real = inputs.unbind(1)
        found = self.model(input_ids=ids, attention_mask=real)
        tokens: Tensor = found.last_hidden_state
        own = getattr(found, "pooler_output", None)
        if self.pooling == "own" and own is None:
            raise ModelError(f"pooling: {type(self.model).__name__} has no pooled features of its own")
        if own is None or self.pooling == "mean":
            own = (tokens * real.unsqueeze(-1)).sum(1) / real.sum(1, keepdim=True).clamp_min(1)
        pooled = tokens[:, 0] if self.pooling == "first" else own
        return pooled, F.pad(tokens, (0, 0, 0, self.length - tokens.shape[1])), real.bool()


class TransformersText(TowerOptions):
    """Texts pass through a pre-trained model of the transformers library."""

    model: str
    """Name of a pre-trained model, see `common.frozen.pretrained`."""
    length: int = Field(64, ge=4, le=8192)
    """Maximum number of tokens per text. Further tokens are cut off."""
    pooling: Literal["mean", "first", "own"] | None = None
    """The pooled features: the mean of the tokens, the first token, or the model's `own`, which few models have.
    `null`: as the folder of the model says (`1_Pooling/config.json` of sentence-transformers), else the model's own,
    else the mean."""

    def shape(self) -> tuple[int, int]:
        """The hidden size of the model, and `length` tokens."""
        return _width(locate(self.model)), self.length

    def load(self, weights: bool = True) -> TransformersTextTower:
        """A new tower."""
        folder = locate(self.model)
        network, tokenizer = text_model(folder) if weights else (None, tokenizer_of(folder))
        return TransformersTextTower(network, tokenizer, self.length, self.pooling or _pooling(folder))

    def described(self) -> str:
        """A text with the options and a hash of the model's folder, which contains weights and tokenizer."""
        folder = locate(self.model)
        pooling = self.pooling or _pooling(folder)
        said = f"pooling {pooling} " if pooling else ""
        return f"transformers-text length {self.length} {said}{fingerprint(folder)}"


def _width(folder: Path) -> int:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return int(next(config[key] for key in WIDTHS if key in config))
    except (OSError, ValueError, TypeError, StopIteration) as error:
        raise ModelError(f"{folder}: config.json has no hidden_size of a text encoder: {error}") from None


def _pooling(folder: Path) -> str | None:
    """The pooling with which sentence-transformers trained the model; None if its folder says nothing.

    Raises ModelError for a pooling that is not supported.
    """
    path = folder / POOLING
    if not path.exists():
        return None
    try:
        modes = {name for name, on in json.loads(path.read_text(encoding="utf-8")).items()
                 if on is True and name.startswith("pooling_mode_")}  # fmt: skip
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if len(modes) != 1 or not modes <= MODES.keys():
        raise ModelError(f"{path}: {', '.join(sorted(modes))} is not supported: set the option `pooling`")
    return MODES[modes.pop()]
