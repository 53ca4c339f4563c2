"""The interface of encoders. An encoder is the only code that interprets the raw values of a modality."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from common.columns import Category, Number
from common.config.component import Component, Options
from common.encoders.shared.backbones import Backbone, check_sides
from common.encoders.shared.picture_augmentation import PictureAugmentation
from common.media.values import Raw

Stored = Literal["float32", "float16"]
"""Name of the type of prepared values that are real numbers."""


class Encoder(nn.Module, ABC):
    """Converts raw values of one modality to tensors, and tensors to features. The preprocessing is a part of the
    encoder, because it must match the weights.

    width: the number D of features. augmentation: the options of the random variants in training; None: no variants.
    rate: the rate per second to which `prepare` resamples values; None: it does not resample.
    """

    width: int
    augmentation: Options | None = None
    rate: float | None = None

    @abstractmethod
    def prepare(self, raw: Raw) -> Tensor:
        """One raw value as input for `forward`, without the batch dimension. Shape and type are always the same.

        The type may be any, because `forward` converts it on its device. A small type, e.g. uint8 for pixels, saves
        memory and the time to copy the value to the device.

        Raises ValueError for a value that this encoder cannot read.
        """

    def check(self, raw: Raw) -> None:
        """Raises ValueError for a value that `prepare` would refuse."""
        self.prepare(raw)

    def notes(self, raw: Raw) -> Sequence[str]:
        """Findings about a value that `prepare` accepts, without anything of its content. By default, none."""
        return ()

    def check_columns(self, columns: Mapping[str, Number | Category]) -> list[str]:
        """The differences between the columns of a site's table and those of this encoder. By default, none."""
        return []

    @abstractmethod
    def blank(self) -> Tensor:
        """The replacement for a missing value: zeros in the shape and type that `prepare` returns."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """Features [B, D] of prepared inputs [B, ...]."""

    @property
    def base(self) -> str:
        """A text that identifies the pre-trained weights that are not sent, because every site has them; "" without
        any. The server refuses a site with others."""
        return ""

    @property
    def augments(self) -> bool:
        """Whether `augment` may change a value. By default, it may if the encoder has options of an augmentation."""
        return self.augmentation is not None

    def lr_factor(self, name: str) -> float:
        """The factor on `train.lr` for the parameter `name` of this encoder, as `named_parameters` names it: greater
        than 0, and by default 1. Parameters with the same factor are one group of the optimiser."""
        return 1.0

    def augment(self, prepared: Tensor) -> Tensor:
        """A random variant of one prepared value, without the batch dimension, in the same shape and type. Only
        training uses it.

        It draws from torch's global CPU generator, which the caller seeds. By default, it returns the value itself.
        """
        return prepared

    def alternatives(self) -> list["Encoder"]:
        """The encoders from which a site uses one. Every encoder except a mixed one returns only itself."""
        return [self]

    def tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Token features [B, T, D] of prepared inputs, and a mask [B, T] bool of the real tokens. At least one token
        per row is real.

        By default, the features are the only token.
        """
        features = self(inputs).unsqueeze(1)
        return features, torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)

    def pooled_and_tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, D], tokens [B, T, D] and the mask of real tokens [B, T], as `forward` and `tokens` return them.

        An encoder with its own tokens may compute both in one pass.
        """
        if type(self).tokens is Encoder.tokens:
            tokens, real = self.tokens(inputs)
            return tokens[:, 0], tokens, real
        return self(inputs), *self.tokens(inputs)


class Tower(ABC):
    """A frozen network with its preprocessing."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """The network, which the caller of `features` moves to a device. A tower that only prepares values has none."""

    @abstractmethod
    def inputs(self, raw: Raw) -> Tensor:
        """One raw value as the network's input, without the batch dimension.

        Raises ValueError for a value that the network cannot read.
        """

    @abstractmethod
    def blank(self) -> Tensor:
        """The replacement for a missing value: zeros in the shape and type that `inputs` returns."""

    def sample(self) -> Tensor:
        """A blank value on which the network computes as on every other one. By default `blank`; a network that reads
        values of any length takes a short one, because a gradient needs memory for every place."""
        return self.blank()

    @abstractmethod
    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For inputs [B, ...]: pooled features [B, D], token features [B, T, D] and the mask of the real tokens [B, T]
        bool."""


def standardised(pooled: Tensor, tokens: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features [B, D] with a mean square of 1, because the scale of a tower's output is arbitrary, and tokens
    [B, T, D], each one standardised, with zeros where `real` [B, T] is false."""
    width = pooled.shape[-1]
    scaled = F.normalize(pooled.float(), dim=-1) * width**0.5
    return scaled, F.layer_norm(tokens.float(), (width,)) * real.unsqueeze(-1)


class FrozenEncoder(Encoder):
    """An encoder that is never trained. Its weights are not parameters of the model and are not sent. The features of a
    value are computed once and kept (`common.data.prepared.frozen`).

    Its prepared inputs are the features themselves, [1 + T, D], as `standardised` returns them: the pooled features,
    then the tokens.
    """

    _place: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.width, self.length = width, length
        self._moved = False
        # An encoder without parameters has no device of its own. This one moves with the model.
        self.register_buffer("_place", torch.empty(0), persistent=False)

    @property
    @abstractmethod
    def tower(self) -> Tower:
        """The network, loaded when it is first needed.

        Raises ModelError.
        """

    @abstractmethod
    def described(self) -> str:
        """A text with everything that the features of a value depend on: the kind of tower, its weights, its
        preprocessing."""

    @property
    def base(self) -> str:
        """All weights of the tower are pre-trained."""
        return self.described()

    @torch.no_grad()
    def extract(self, inputs: Tensor) -> Tensor:
        """Features [B, 1 + T, D] for the tower's inputs [B, ...], computed on the encoder's device and returned in the
        memory of the processor."""
        tower, device = self.tower, self._place.device
        tower.network.to(device)
        self._moved = device.type != "cpu"
        pooled, tokens, real = tower.features(inputs.to(device))
        pooled, tokens = standardised(pooled, tokens, real)
        return torch.cat([pooled.unsqueeze(1), tokens], dim=1).cpu()

    def rest(self) -> None:
        """Free the device's memory that the network uses, until features are computed again."""
        if self._moved:
            self.tower.network.to("cpu")
            self._moved = False

    def check(self, raw: Raw) -> None:
        """Raises ValueError for a value that the tower refuses. The network does not run."""
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
    """The base class of the encoders' options.

    of_network: the options that do not change what `prepare` returns. Prepared values stay valid when these options
    change.
    """

    of_network: ClassVar[frozenset[str]] = frozenset()

    @property
    def lacks_columns(self) -> bool:
        """Whether the encoder reads tables, and the federation must still agree on their columns."""
        return False

    def content(self) -> str:
        """A text that identifies the files on which prepared values depend, in addition to the options; "" if there
        are none."""
        return ""

    def bases(self) -> frozenset[str]:
        """The texts `Encoder.base` of the encoders that sites may have; empty without pre-trained weights."""
        return frozenset()

    @abstractmethod
    def build(self) -> Encoder:
        """A new encoder with random weights."""

    def preparer(self) -> Encoder:
        """An encoder that only prepares values. By default it is the encoder of `build`; one with large weights can
        leave them out, because each process that prepares values makes its own."""
        return self.build()


class PictureOptions(EncoderOptions):
    """Options of encoders that send square pictures through a backbone."""

    of_network: ClassVar[frozenset[str]] = frozenset({"backbone", "filters", "width", "augment"})

    size: int = Field(28, ge=8, le=1024)
    """Pixels per side of a picture."""
    backbone: Backbone = "cnn"
    """The network that computes the features."""
    filters: int = Field(16, ge=8, multiple_of=8, le=1024)
    """Number of filters of the first convolution of the cnn backbone."""
    width: int = Field(64, ge=1, le=16_384)
    """Number of features D."""
    augment: PictureAugmentation | None = None
    """Random variants of the pictures in training. `null`: none."""

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        check_sides(self.backbone, self.size, self.size)
        return self
