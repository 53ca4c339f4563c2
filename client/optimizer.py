"""The optimiser of a round: groups of parameters with learning rates of their own, and the clipping of gradients."""

from collections.abc import Iterator

import torch
from torch import nn

from common.config.experiment import Train
from common.encoders.base import Encoder

FACTOR = "factor"
"""The key of a group's factor on the learning rate."""


def make_optimizer(model: nn.Module, settings: Train) -> torch.optim.Optimizer:
    """The optimiser of a round, for the trainable parameters. It has one group for each pair of factor on the learning
    rate (`Encoder.lr_factor`) and weight decay."""
    factors = lr_factors(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for value in model.parameters():
        if value.requires_grad:
            decay = settings.weight_decay if settings.decay_norms or value.dim() > 1 else 0.0
            groups.setdefault((factors.get(value, 1.0), decay), []).append(value)
    options = [
        {"params": values, FACTOR: factor, "lr": factor * settings.lr, "weight_decay": decay}
        for (factor, decay), values in groups.items()
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(options, settings.lr)
    return torch.optim.SGD(options, settings.lr, momentum=settings.momentum)


def lr_factors(model: nn.Module) -> dict[nn.Parameter, float]:
    """The factor on the learning rate of each parameter of an encoder. In an encoder inside another one, the outer
    encoder decides."""
    factors: dict[nn.Parameter, float] = {}
    for module in model.modules():
        if isinstance(module, Encoder):
            for name, value in module.named_parameters():
                factors.setdefault(value, module.lr_factor(name))
    return factors


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of each group to its factor times `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = group[FACTOR] * rate


def clip_gradients(optimizer: torch.optim.Optimizer, most: float) -> None:
    """Scale all gradients g together to g * min(1, most / (||g|| + 1e-6)), with the L2 norm over all parameters.

    Does not wait for the device. Gradients that are not finite stay so, and training reports the divergence later.

    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks", ICML 2013,
    https://arxiv.org/abs/1211.5063, algorithm 1.
    """
    nn.utils.clip_grad_norm_(list(_values(optimizer)), most)


def _values(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]
