"""Pre-trained encoders: the options that they share, and how such an encoder is built."""

import re
from abc import abstractmethod
from functools import lru_cache
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from common.config.component import Options
from common.encoders.base import Encoder, EncoderOptions, FrozenEncoder, Tower
from common.encoders.shared.adapters import Lora
from common.encoders.shared.picture_augmentation import PictureAugmentation, picture_transform
from common.errors import ModelError

FROZEN, ALL, LORA = "frozen", "all", "lora"
LAST = re.compile(r"last-([1-9][0-9]{0,3})-blocks?")


class TowerOptions(EncoderOptions):
    """Options of encoders that are a pre-trained network with its preprocessing.

    What is trained is also what travels between sites and server. Everything else stays as it is in the files of the
    pre-trained network, which every site has on its own disk.
    """

    of_network: ClassVar[frozenset[str]] = frozenset({"train", "lora", "lr_scale", "layer_decay", "augment"})

    train: str = Field(FROZEN, pattern=rf"^({FROZEN}|{ALL}|{LORA}|{LAST.pattern})$")
    """The part of the network that is trained and sent. `frozen`: nothing; the features are computed once and kept.
    `all`: every weight. `last-N-blocks`: the last N blocks and what follows them. `lora`: only low-rank adapters.
    Running statistics of batch normalisation always stay those of the pre-trained weights."""
    lora: Lora | None = None
    """The adapters, if `train` is `lora`. `null`: the defaults."""
    lr_scale: float = Field(1.0, gt=0, le=1000)
    """Factor on `train.lr` for this encoder. Pre-trained weights often need a smaller one, e.g. 0.1."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor on the learning rate from each block to the block before it. With 0.75, the last block has 0.75, the one
    before it 0.5625, and so on. 1: all blocks have the same rate."""

    @field_validator("train", mode="before")
    @classmethod
    def _choice(cls, given: Any) -> Any:
        if isinstance(given, str) and given not in (FROZEN, ALL, LORA) and not LAST.fullmatch(given):
            raise ValueError(f"{FROZEN}, {ALL}, {LORA} or last-N-blocks, e.g. last-2-blocks, is needed, not {given!r}")
        return given

    @property
    def changes(self) -> Options | None:
        """The options of the random variants in training, if any."""
        found: Options | None = getattr(self, "augment", None)
        return found

    @property
    def last_blocks(self) -> int | None:
        """The number N of `last-N-blocks`; None for another choice."""
        found = LAST.fullmatch(self.train)
        return int(found[1]) if found else None

    @property
    def starts_pretrained(self) -> bool:
        """Whether the network starts with pre-trained weights."""
        return True

    @property
    def resampled_to(self) -> float | None:
        """The rate per second to which values are resampled; None: they are not resampled."""
        return None

    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The width D of the features and the number T of tokens. Loads no weights.

        Raises ModelError.
        """

    @abstractmethod
    def load(self, weights: bool = True) -> Tower:
        """A new tower, which nothing else uses. weights: whether it has a network; without one, it prepares values.

        Raises ModelError.
        """

    @abstractmethod
    def described(self) -> str:
        """A text with everything that the features of the untrained network depend on: the kind of tower, a hash of its
        files, its preprocessing.

        Raises ModelError.
        """

    def kept(self) -> Tower:
        """A tower in eval mode, which this process keeps and shares.

        Raises ModelError.
        """
        return _kept(self, self.described())

    def variant(self, prepared: Tensor) -> Tensor:
        """A random variant of one prepared value, see `Encoder.augment`."""
        return prepared

    def content(self) -> str:
        """The files on which prepared values depend."""
        return self.described() if self.starts_pretrained else ""

    def bases(self) -> frozenset[str]:
        """The description of the pre-trained network."""
        return frozenset({self.described()}) if self.starts_pretrained else frozenset()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.lora is not None and self.train != LORA:
            raise ValueError(f"lora: the adapters are unused, because train is {self.train}")
        if self.train == FROZEN and self.changes is not None:
            raise ValueError("augment: features of a frozen network are computed once, so they cannot vary")
        if self.train == FROZEN and (self.lr_scale, self.layer_decay) != (1, 1):
            raise ValueError("lr_scale and layer_decay: nothing of a frozen network is trained")
        if self.train != ALL and not self.starts_pretrained:
            raise ValueError(
                f"train is {self.train}, but there are no pre-trained weights: set pretrained, or train: all"
            )
        return self

    def build(self) -> Encoder:
        """The encoder. Its base weights are those of the files."""
        from common.encoders.shared.trained_tower import TrainedTower

        return FrozenTower(self) if self.train == FROZEN else TrainedTower(self)

    def preparer(self) -> Encoder:
        """The encoder without its network, if values are prepared for a network that is trained."""
        from common.encoders.shared.trained_tower import PreparingTower

        return FrozenTower(self) if self.train == FROZEN else PreparingTower(self)


class PictureTowerOptions(TowerOptions):
    """Options of pre-trained encoders whose prepared values are pixels [..., C, H, W] uint8."""

    augment: PictureAugmentation | None = None
    """Random variants of the pictures in training. All frames of a video change in the same way. `null`: none."""

    def variant(self, prepared: Tensor) -> Tensor:
        """[..., C, H, W] uint8."""
        if self.augment is None:
            return prepared
        return picture_transform(self.augment, tuple(prepared.shape[-2:]))(prepared)


class FrozenTower(FrozenEncoder):
    """A pre-trained network of which nothing is trained."""

    def __init__(self, options: TowerOptions) -> None:
        super().__init__(*options.shape())
        self.options, self.rate = options, options.resampled_to

    @property
    def tower(self) -> Tower:
        """The tower. The process keeps it after the first load."""
        return self.options.kept()

    def described(self) -> str:
        """A text with the options and a hash of the model's folder."""
        return self.options.described()


@lru_cache(maxsize=2)
def _kept(options: TowerOptions, content: str) -> Tower:
    tower = options.load()
    tower.network.eval().requires_grad_(False)
    with torch.no_grad():
        features_of_blank(tower)
    return tower


def features_of_blank(tower: Tower) -> tuple[Tensor, Tensor, Tensor]:
    """The features of one blank value.

    Raises ModelError when the network cannot read values in the shape that the options give, e.g. a text that is longer
    than its positions. Without this, the first value of a site would fail.
    """
    blank = tower.blank().unsqueeze(0)
    try:
        return tower.features(blank)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        shape = " x ".join(map(str, blank.shape[1:]))
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"the network cannot read values of the shape {shape}, which the options give: {said}"
        ) from None
