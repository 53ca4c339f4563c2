"""What an encoder is: the one place that knows what a modality's raw values mean."""

from abc import ABC, abstractmethod
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from common.backbones import Backbone, check_sides
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


class EncoderOptions(Component):
    """Base of the encoders' options."""

    @abstractmethod
    def build(self) -> Encoder:
        """A new encoder with random weights."""


class PictureOptions(EncoderOptions):
    """Of encoders that put square pictures through a backbone.

    size: pixels a side; width: features D; filters: of the first convolution of the cnn backbone.
    """

    size: int = Field(28, ge=8)
    backbone: Backbone = "cnn"
    filters: int = Field(16, ge=8, multiple_of=8)
    width: int = Field(64, ge=1)

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        check_sides(self.backbone, self.size, self.size)
        return self
