"""Values of any length: padding with a mask, and networks that ignore the padding.

A padded tensor [..., R + 1, T] has the values in its first R rows, and zeros after the end of the value. Its last row
is 1 in the real places and 0 in the others. Features are the same for every amount of padding, except for rounding.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def check_length(given: int, longest: int, unit: str) -> None:
    """Raises ValueError when a value does not fit into the windows."""
    if given > longest:
        raise ValueError(f"{given} {unit}, at most {longest} fit into the windows: set a larger number of windows")


def padded(values: Tensor, length: int) -> Tensor:
    """The padded tensor [..., R + 1, length] of values [..., R, T], for T up to `length`."""
    ones = values.new_ones(*values.shape[:-2], 1, values.shape[-1])
    return F.pad(torch.cat([values, ones], dim=-2), (0, length - values.shape[-1]))


def unpadded(prepared: Tensor) -> Tensor:
    """The values [..., R, T] of a padded tensor without a batch dimension."""
    real = prepared[..., -1, :].reshape(-1, prepared.shape[-1])[0]
    return prepared[..., :-1, : int(real.count_nonzero())]


def over_windows(net: Callable[[Tensor, Tensor], Tensor], inputs: Tensor, windows: int) -> Tensor:
    """Features [B, D] of padded tensors [B, ..., R + 1, windows * T]: the mean of the features of the windows, weighted
    by their numbers of real places. Windows without real places do not count.

    net: the features [N, D] of values [N, ..., R, T] with the mask [N, T].
    """
    divided = inputs.reshape(*inputs.shape[:-1], windows, -1).movedim(-2, 1).flatten(0, 1)
    real = divided[..., -1, :].reshape(len(divided), -1, divided.shape[-1])[:, 0]
    features = net(divided[..., :-1, :], real).reshape(len(inputs), windows, -1)
    weights = real.sum(dim=1).reshape(-1, windows, 1)
    mean: Tensor = (features * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    return mean


def through(layers: Iterable[nn.Module], values: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Values [B, ..., T] after the layers of a network, and the mask [B, T'] that fits them.

    After each layer, the padding is zero again. So convolutions with zero padding, and pooling of values that are not
    negative, read the same numbers after the end of a value as at the end of a tensor. layers: such convolutions and
    pooling, which keep the length or halve it and round up, group normalisation, and functions of single numbers.
    """
    for layer in layers:
        before = values.shape[-1]
        values = _group_norm(layer, values, real) if isinstance(layer, nn.GroupNorm) else layer(values)
        real = real if values.shape[-1] == before else real[:, ::2]
        values = values * _fitting(real, values)
    return values, real


def span_means(values: Tensor, real: Tensor, parts: int) -> Tensor:
    """Means [B, ..., parts] of values [B, ..., T] over nearly equal parts of the real places, with the limits of
    torch's adaptive pooling: part i begins at floor(i L / parts) and ends before ceil((i + 1) L / parts)."""
    length = real.sum(dim=1).reshape(-1, 1, 1)
    part = torch.arange(parts, device=real.device).reshape(1, -1, 1)
    place = torch.arange(real.shape[1], device=real.device)
    begin, end = (part * length / parts).floor(), ((part + 1) * length / parts).ceil()
    weights = ((place >= begin) & (place < end)) / (end - begin).clamp(min=1)
    return torch.einsum("b...t,bpt->b...p", values.float(), weights)


def _group_norm(layer: nn.GroupNorm, values: Tensor, real: Tensor) -> Tensor:
    """Group normalisation [B, C, ..., T] with the mean and the variance of the real places."""
    groups = values.float().reshape(len(values), layer.num_groups, -1, *values.shape[2:])
    mask = _fitting(real, groups)
    dims = tuple(range(2, groups.dim()))
    count = (mask.sum(dim=-1, keepdim=True) * math.prod(groups.shape[2:-1])).clamp(min=1)
    mean = (groups * mask).sum(dim=dims, keepdim=True) / count
    variance = ((groups - mean) * mask).square().sum(dim=dims, keepdim=True) / count
    normal = ((groups - mean) * torch.rsqrt(variance + layer.eps)).flatten(1, 2)
    shape = (-1, *[1] * (values.dim() - 2))
    scaled: Tensor = normal * layer.weight.reshape(shape) + layer.bias.reshape(shape)
    return scaled


def _fitting(real: Tensor, values: Tensor) -> Tensor:
    """The mask in a shape that multiplies values [B, ..., T]."""
    return real.reshape(len(real), *[1] * (values.dim() - 2), -1)
