"""A pre-trained network that is trained further, wholly or in part."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from common.encoders.base import Encoder, standardised
from common.encoders.shared.adapters import MARK, Lora, add_adapters, merge_adapters
from common.encoders.shared.network_blocks import block_numbers, hold_fixed, rest_fixed, used_by
from common.encoders.shared.tower_options import ALL, LORA, TowerOptions, features_of_blank
from common.errors import ConfigError
from common.media.values import Raw


class PreparingTower(Encoder):
    """The preprocessing of a network, without the network."""

    weights: ClassVar[bool] = False

    def __init__(self, options: TowerOptions) -> None:
        super().__init__()
        self.options, self.augmentation, self.rate = options, options.changes, options.resampled_to
        with _own_randomness(options.starts_pretrained):
            self._tower = options.load(self.weights)

    def prepare(self, raw: Raw) -> Tensor:
        """One raw value as input of the network, without the batch dimension."""
        return self._tower.inputs(raw)

    def blank(self) -> Tensor:
        """Zeros in the shape and type of a prepared value."""
        return self._tower.blank()

    def augment(self, prepared: Tensor) -> Tensor:
        """A random variant in the same shape and type."""
        return self.options.variant(prepared)

    def forward(self, inputs: Tensor) -> Tensor:
        """There is no network.

        Raises NotImplementedError.
        """
        raise NotImplementedError


class TrainedTower(PreparingTower):
    """A network with its preprocessing. Its features begin as those of the same network frozen.

    The parameters are the trained part alone. All other weights are buffers outside the state, so that no message and
    no saved model contains them.
    """

    weights = True

    def __init__(self, options: TowerOptions) -> None:
        base = options.described() if options.starts_pretrained else ""  # before the files are read
        super().__init__(options)
        self._base = base
        self.width, self.length = options.shape()
        self.network: nn.Module = self._tower.network
        self._numbers = block_numbers(self.network)
        try:
            self._divide()
        except ValueError as error:
            raise ConfigError("encoder", [str(error)]) from None

    def _divide(self) -> None:
        """Divide the network into a trained and a fixed part. Weights on which the features do not depend are fixed."""
        options = self.options
        if not options.starts_pretrained:
            return
        self.network.eval().requires_grad_(False)  # a pass in training would change running statistics
        features_of_blank(self._tower)
        used = used_by(self.network, lambda: self._tower.features(self._tower.sample().unsqueeze(0))[:2])
        if options.train == LORA:
            add_adapters(self.network, options.lora or Lora(), used.modules)
            hold_fixed(self.network, {name for name, _ in self.network.named_parameters() if MARK in name})
            return
        first, blocks = -1, 1 + max(self._numbers.values())
        if (wanted := options.last_blocks) is not None:
            if wanted > blocks:
                raise ValueError(f"train is {options.train}, but the network has {blocks} blocks")
            first = blocks - wanted
        trained = {name for name in used.parameters if self._numbers[name] >= first}
        if not trained:
            raise ValueError(f"train is {options.train}, but the features depend on no weight of these blocks")
        hold_fixed(self.network, trained)

    @property
    def base(self) -> str:
        """The description of the pre-trained network as it was loaded, because its files may change later; "" if the
        network has none."""
        return self._base

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained."""
        return self.options.train == LORA

    def merge(self) -> "TrainedTower":
        """The same encoder as one whose whole network is trained, with every adapter added to the weight of its layer.
        This encoder loses its adapters."""
        merged = TrainedTower(self.options.model_copy(update={"train": ALL, "lora": None}))
        merge_adapters(self.network)
        now = dict(self.network.named_buffers()) | dict(self.network.named_parameters())
        for name, value in merged.network.named_parameters():
            value.data.copy_(now[name])
        return merged

    def __deepcopy__(self, memo: dict[int, Any]) -> "TrainedTower":
        """A copy, e.g. as a teacher, that shares the fixed weights, which are most of the memory."""
        if self.options.starts_pretrained:
            memo |= {id(value): value for value in self.network.buffers()}
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def lr_factor(self, name: str) -> float:
        """lr_scale * layer_decay ** (number of blocks from the end, from 1) for a parameter of the encoder."""
        blocks = 1 + max(self._numbers.values(), default=-1)
        plain = name.removeprefix("network.").replace(".base_layer", "").partition(f".{MARK}")[0]
        block = max((number for own, number in self._numbers.items() if own.startswith(plain)), default=blocks - 1)
        return self.options.lr_scale * self.options.layer_decay ** (blocks - block)

    def train(self, mode: bool = True) -> "TrainedTower":
        """Set the mode. The fixed parts, and all batch normalisation of pre-trained networks, always compute as in
        prediction."""
        super().train(mode)
        if mode and self.options.starts_pretrained:
            rest_fixed(self.network)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Pooled features [B, D] of prepared inputs [B, ...]."""
        return self.pooled_and_tokens(inputs)[0]

    def tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens [B, T, D] and the mask [B, T] of the real ones."""
        _, tokens, real = self.pooled_and_tokens(inputs)
        return tokens, real

    def pooled_and_tokens(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, D], tokens [B, T, D] and the mask of real tokens [B, T], scaled as those of a frozen encoder."""
        alone = self.training and len(inputs) == 1 and any(_learns_statistics(part) for part in self.network.modules())
        if alone:  # one example has no batch statistics
            self.network.eval()
        try:
            pooled, tokens, real = self._tower.features(inputs)
        finally:
            if alone:
                self.train()
        pooled, tokens = standardised(pooled, tokens, real)
        return pooled, tokens, real


def _learns_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.training


def _own_randomness(apart: bool) -> AbstractContextManager[None]:
    """Whether random numbers are drawn apart from the caller's. Libraries draw random weights before they read the
    pre-trained ones, and how many they draw must not change the other weights of a model."""
    return torch.random.fork_rng(devices=[]) if apart else nullcontext()
