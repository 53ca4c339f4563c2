"""An encoder for short texts: bags of hashed words or character n-grams. It is trained from scratch, without downloads.

Hashed features: K. Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009. Character
n-grams with marked word ends: P. Bojanowski et al., "Enriching Word Vectors with Subword Information", TACL 2017.
"""

import unicodedata
import zlib
from typing import ClassVar

import regex
import torch
from pydantic import Field
from torch import Tensor, nn

from common.config.component import Options
from common.encoders.base import Encoder, EncoderOptions
from common.media.values import Raw

WORD = regex.compile(r"[\w\p{M}\u200c\u200d]+")
"""Letters, digits and their marks (e.g. vowel signs of Hindi), with the joiners of Persian and Indic scripts."""
SCRIPTS = "".join(rf"\p{{{name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
"""Scripts that are written without spaces between words."""
TOKEN = regex.compile(rf"[{SCRIPTS}]\p{{M}}*|[\w\p{{M}}\u200c\u200d--[{SCRIPTS}]]+", regex.VERSION1)
"""A word, or a sign with its marks in a script without spaces."""
PADDING = 0


class TextEncoder(Encoder):
    """Tokens -> hashed ids -> embeddings -> their mean -> two linear layers. The order of the tokens has no effect."""

    def __init__(self, options: "Text") -> None:
        super().__init__()
        self.options, self.width, self.augmentation = options, options.width, options.augment
        self.embedding = nn.Embedding(options.buckets + 1, options.width, padding_idx=PADDING)
        self.net = nn.Sequential(
            nn.Linear(options.width, options.width), nn.ReLU(), nn.Linear(options.width, options.width)
        )

    def prepare(self, raw: Raw) -> Tensor:
        """The ids of the first `length` tokens, then zeros: [length] int64."""
        if not isinstance(raw, str):
            raise ValueError(f"a text is needed, not {type(raw).__name__}")
        ids = [token_id(token, self.options.buckets) for token in tokens(raw, self.options.ngram)]
        if not ids:
            raise ValueError("the text has no words")
        padded = self.blank()
        padded[: len(ids)] = torch.tensor(ids[: self.options.length], dtype=torch.int64)
        return padded

    def blank(self) -> Tensor:
        """Only padding: [length] int64."""
        return torch.full((self.options.length,), PADDING)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, length] -> [B, D]."""
        real = (inputs != PADDING).unsqueeze(-1)
        # The mask removes padding from the sum. padding_idx alone stops only the gradients of the padding's embedding.
        total = (self.embedding(inputs) * real).sum(dim=1)
        features: Tensor = self.net(total / real.sum(dim=1).clamp(min=1))
        return features

    def augment(self, prepared: Tensor) -> Tensor:
        """[length] int64. Padding replaces the tokens that are left out, because the order has no effect."""
        chosen = self.options.augment
        if chosen is None:
            return prepared
        draws = torch.rand(len(prepared)) * (prepared != PADDING)
        return torch.where(draws >= draws.max().clamp(max=chosen.token_dropout), prepared, PADDING)


class TextAugmentation(Options):
    """Random variants of texts in training."""

    token_dropout: float = Field(0.0, ge=0, lt=1)
    """Probability with which each token is left out. At least one token stays."""


class Text(EncoderOptions):
    """A short text becomes the mean of the embeddings of its hashed tokens."""

    of_network: ClassVar[frozenset[str]] = frozenset({"width", "augment"})

    buckets: int = Field(2048, ge=1, le=1_000_000)
    """Number of different token ids. Tokens with the same id cannot be distinguished."""
    length: int = Field(16, ge=1, le=65_536)
    """Maximum number of tokens per text. Further tokens are cut off."""
    ngram: int | None = Field(None, ge=1, le=8)
    """Number of characters of the n-grams into which words are cut. Misspelt words share n-grams with the correct word.
    `null`: whole words."""
    width: int = Field(64, ge=1, le=16_384)
    """Number of features D, and the width of the embedding."""

    augment: TextAugmentation | None = None
    """Random variants of the texts in training. `null`: none."""

    def build(self) -> TextEncoder:
        """A new encoder with random weights."""
        return TextEncoder(self)


def tokens(text: str, ngram: int | None) -> list[str]:
    """The words in lower case; in scripts without spaces, each sign is a word. With `ngram`, the n-grams of "<word>"; a
    shorter word is one n-gram."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    if ngram is None:
        return list(TOKEN.findall(text))
    marked = [f"<{word}>" for word in WORD.findall(text)]
    return [word[i : i + ngram] for word in marked for i in range(max(1, len(word) - ngram + 1))]


def token_id(token: str, buckets: int) -> int:
    """A number from 1 to `buckets`. Unlike Python's own hash, it is the same in every process and on every machine."""
    return zlib.crc32(token.encode()) % buckets + 1
