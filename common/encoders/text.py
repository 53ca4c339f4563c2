"""Short texts as bags of hashed words or character n-grams; trained from scratch, nothing is downloaded.

Hashed features: K. Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009. Character
n-grams with marked word ends: P. Bojanowski et al., "Enriching Word Vectors with Subword Information", TACL 2017.
"""

import unicodedata
import zlib

import regex
import torch
from pydantic import Field
from torch import Tensor, nn

from common.encoders.base import Encoder, EncoderOptions
from common.media.values import Raw

WORD = regex.compile(r"[\w\p{M}\u200c\u200d]+")
"""Letters, digits and the marks on them (vowel signs of Hindi, say), with the joiners of Persian and Indic scripts."""
SCRIPTS = "".join(rf"\p{{{name}}}" for name in ("Han", "Hiragana", "Katakana", "Thai", "Lao", "Khmer", "Myanmar"))
"""Those that are written without spaces between words."""
TOKEN = regex.compile(rf"[{SCRIPTS}]\p{{M}}*|[\w\p{{M}}\u200c\u200d--[{SCRIPTS}]]+", regex.VERSION1)
"""A word; or, of such a script, a sign with its marks."""
PADDING = 0


class TextEncoder(Encoder):
    """Tokens -> hashed ids -> embeddings -> their mean -> two linear layers. The order of the tokens is not seen."""

    def __init__(self, options: "Text") -> None:
        super().__init__()
        self.options, self.width = options, options.width
        self.embedding = nn.Embedding(options.buckets + 1, options.width, padding_idx=PADDING)
        self.net = nn.Sequential(
            nn.Linear(options.width, options.width), nn.ReLU(), nn.Linear(options.width, options.width)
        )

    def prepare(self, raw: Raw) -> Tensor:
        """[length] int64: the ids of the first `length` tokens, then zeros."""
        if not isinstance(raw, str):
            raise ValueError(f"a text is needed, not {type(raw).__name__}")
        ids = [token_id(token, self.options.buckets) for token in tokens(raw, self.options.ngram)]
        if not ids:
            raise ValueError("the text has no words")
        padded = self.blank()
        padded[: len(ids)] = torch.tensor(ids[: self.options.length], dtype=torch.int64)
        return padded

    def blank(self) -> Tensor:
        """[length] int64 of padding."""
        return torch.full((self.options.length,), PADDING)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, length] -> [B, D]."""
        real = (inputs != PADDING).unsqueeze(-1)
        # The mask stands beside padding_idx, which only stops gradients: padding is left out whatever its row holds.
        total = (self.embedding(inputs) * real).sum(dim=1)
        features: Tensor = self.net(total / real.sum(dim=1).clamp(min=1))
        return features


class Text(EncoderOptions):
    """Short texts as the mean of their hashed tokens' embeddings."""

    buckets: int = Field(2048, ge=1, le=1_000_000)
    """Different ids; tokens that share one are not told apart."""
    length: int = Field(16, ge=1, le=65_536)
    """Tokens kept, the rest is cut off."""
    ngram: int | None = Field(None, ge=1, le=8)
    """Characters of the n-grams that words are cut into, which misspelt words share. None: whole words."""
    width: int = Field(64, ge=1, le=16_384)
    """Features D, and the width of the embedding."""

    def build(self) -> TextEncoder:
        """A new encoder with random weights."""
        return TextEncoder(self)


def tokens(text: str, ngram: int | None) -> list[str]:
    """Words without regard to case, a sign being a word in scripts without spaces; or the n-grams of "<word>", where a
    word shorter than that is one n-gram."""
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    if ngram is None:
        return list(TOKEN.findall(text))
    marked = [f"<{word}>" for word in WORD.findall(text)]
    return [word[i : i + ngram] for word in marked for i in range(max(1, len(word) - ngram + 1))]


def token_id(token: str, buckets: int) -> int:
    """1 to `buckets`, the same in every process and on every machine, unlike Python's own hash."""
    return zlib.crc32(token.encode()) % buckets + 1
