"""What an encoder is: the one place that knows what a modality's raw values mean."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from common.component import Component
from common.data.media import Raw


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

    @abstractmethod
    def blank(self) -> Tensor:
        """The stand-in for a missing value, zeros in the shape that `prepare` gives."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Features [B, D] of prepared inputs [B, ...]."""

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


class EncoderOptions(Component):
    """Base of the encoders' options."""

    @abstractmethod
    def build(self) -> Encoder:
        """A new encoder with random weights."""
