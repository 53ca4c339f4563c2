"""What an encoder is: the one place that knows what a modality's raw values mean."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from common.config.component import Component
from common.encoders.shared.backbones import Backbone, check_sides
from common.media.values import Raw


class Encoder(nn.Module, ABC):
    """Raw values of one modality -> tensors -> features. It owns its preprocessing, which belongs to the weights.

    width: the number D of features.
    """

    width: int

    @abstractmethod
    def prepare(self, raw: Raw) -> Tensor:
        """One raw value as the input of `forward`, without the batch dimension; always of the same shape.

        Raises ValueError for a value that is not of this encoder's kind.
        """

    def check(self, raw: Raw) -> None:
        """Raises ValueError for a value that `prepare` would not take."""
        self.prepare(raw)

    @abstractmethod
    def blank(self) -> Tensor:
        """The stand-in for a missing value, zeros in the shape that `prepare` gives."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Features [B, D] of prepared inputs [B, ...]."""

    def alternatives(self) -> list["Encoder"]:
        """The ways to prepare values for this encoder, of which a site uses one; for all but a mixed one itself."""
        return [self]

    def tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Token features [B, T, D] of prepared inputs, and which of them are real [B, T] bool; at least one in a row.

        By default the features are the one token.
        """
        features = self(inputs).unsqueeze(1)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def pooled_and_tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, D], tokens [B, T, D] and which of these are real [B, T], as `forward` and `tokens` give them.

        An encoder with tokens of its own may give both in one pass.
        """
        if type(self).tokens is Encoder.tokens:
            tokens, real = self.tokens(inputs)
            return tokens[:, 0], tokens, real
        return self(inputs), *self.tokens(inputs)


class Tower(ABC):
    """A frozen network with its preprocessing."""

    @abstractmethod
    def inputs(self, raw: Raw) -> Tensor:
        """One raw value as the network's input, without the batch dimension.

        Raises ValueError for a value that is not of its kind.
        """

    @abstractmethod
    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of inputs [B, ...]: pooled features [B, D], token features [B, T, D], which tokens are real [B, T] bool."""


class FrozenEncoder(Encoder):
    """An encoder that is never trained: its weights are no parameters of the model, they are not sent, and what it
    makes of a value is computed once and kept (`common.data.features`).

    Its prepared inputs are the features themselves, [1 + T, D]: first the pooled ones, scaled to a mean square of 1, as
    the scale of a tower's output is arbitrary; then the tokens, standardised each, zeros where there is none.
    """

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.width, self.length = width, length

    @property
    @abstractmethod
    def tower(self) -> Tower:
        """The network, loaded when it is first needed.

        Raises ModelError.
        """

    @abstractmethod
    def described(self) -> str:
        """All that the features of a value depend on: the kind of tower, its weights, its preprocessing."""

    @torch.no_grad()
    def extract(self, inputs: Tensor) -> Tensor:
        """Features [B, 1 + T, D] of the tower's inputs [B, ...]."""
        pooled, tokens, real = self.tower.features(inputs)
        pooled = F.normalize(pooled.float(), dim=-1) * self.width**0.5
        tokens = F.layer_norm(tokens.float(), (self.width,)) * real.unsqueeze(-1)
        return torch.cat([pooled.unsqueeze(1), tokens], dim=1)

    def check(self, raw: Raw) -> None:
        """Raises ValueError for a value that the tower does not take; the network is not asked."""
        self.tower.inputs(raw)

    def prepare(self, raw: Raw) -> Tensor:
        """[1 + T, D] float16."""
        return self.extract(self.tower.inputs(raw).unsqueeze(0))[0].half()

    def blank(self) -> Tensor:
        """[1 + T, D] float16."""
        return torch.zeros(1 + self.length, self.width, dtype=torch.float16)

    def forward(self, inputs: Tensor) -> Tensor:
        """[B, 1 + T, D] -> pooled features [B, D]."""
        return inputs[:, 0].float()

    def tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 1 + T, D] -> [B, T, D], [B, T]."""
        tokens = inputs[:, 1:]
        return tokens.float(), (tokens != 0).any(-1)


class EncoderOptions(Component):
    """Base of the encoders' options."""

    @abstractmethod
    def build(self) -> Encoder:
        """A new encoder with random weights."""


class PictureOptions(EncoderOptions):
    """Of encoders that put square pictures through a backbone."""

    size: int = Field(28, ge=8, le=1024)
    """Pixels a side."""
    backbone: Backbone = "cnn"
    """The network."""
    filters: int = Field(16, ge=8, multiple_of=8, le=1024)
    """Of the first convolution of the cnn backbone."""
    width: int = Field(64, ge=1, le=16_384)
    """Features D."""

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        check_sides(self.backbone, self.size, self.size)
        return self
