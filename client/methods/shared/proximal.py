"""The proximal term that keeps local training near the received model."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

Anchor = Mapping[str, Tensor]
"""The received trainable parameters, by name."""


def anchor(model: nn.Module) -> Anchor:
    """A copy of the model's trainable parameters."""
    return {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}


def proximal(model: nn.Module, received: Anchor, mu: float) -> Tensor:
    """(mu / 2) * ||w - w_g||^2, with the trainable parameters w and the received parameters w_g.

    T. Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, https://arxiv.org/abs/1812.06127,
    equation 2.
    """
    current = dict(model.named_parameters())
    squares = [(current[name] - value).square().sum() for name, value in received.items()]
    return mu / 2 * torch.stack(squares).sum()
