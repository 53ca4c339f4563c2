"""Which parameters belong to which modality, and which parameters are sent between server and client."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from common.modality import Modality
from common.models.base import MultimodalModel

SHARED = "shared"  # no modality may have this name
"""The block of all parameters that belong to no modality, e.g. the fusion layer. Every client holds it."""

TOGETHER = 2**16
"""The largest number of values of a small tensor. Small tensors are checked together."""

Params = dict[str, Tensor]
"""Floating-point tensors of a model's state by name."""


def block_of(name: str) -> str:
    """The block of a parameter: the modality in "branches.<modality>...", else SHARED."""
    first, _, rest = name.partition(".")
    return rest.partition(".")[0] if first == "branches" else SHARED


def by_block(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of parameters by block. Blocks and names are in alphabetical order."""
    blocks: dict[str, list[str]] = {}
    for name in sorted(names):
        blocks.setdefault(block_of(name), []).append(name)
    return dict(sorted(blocks.items()))


def get_params(model: MultimodalModel) -> Params:
    """A copy of the learned part of a model's state, see `learned`, in the memory of the processor."""
    return {name: value.to("cpu", copy=True).contiguous() for name, value in learned(model).items()}


def learned(model: MultimodalModel) -> Params:
    """The learned part of a model's state, which is sent: parameters and running statistics, but no counters.

    The result holds the model's own tensors, not copies. A tensor that the model has under two names (shared
    projectors) is in the result once, under the first name.
    """
    params: Params = {}
    seen: set[int] = set()
    for name, value in model.state_dict(keep_vars=True).items():
        if value.is_floating_point() and id(value) not in seen:
            seen.add(id(value))
            params[name] = value.detach()
    return params


def is_variance(name: str) -> bool:
    """Whether a tensor of this name is a running variance. A running variance is never negative, because batch
    normalisation takes its root."""
    return name.endswith("running_var")


def valid(name: str, value: Tensor) -> Tensor:
    """The tensor after noise or rounding. Negative values of a running variance are set to zero."""
    return value.clamp_min(0) if is_variance(name) else value


def all_finite(values: Iterable[Tensor]) -> bool:
    """Whether all values are finite. Small tensors are joined and checked at once, because most tensors of a model are
    small."""
    large: list[Tensor] = []
    small: list[Tensor] = []
    for value in values:
        (large if value.numel() > TOGETHER else small).append(value.detach())
    together = [torch.cat([value.flatten() for value in small])] if small else []
    return all(bool(value.isfinite().all()) for value in [*large, *together])


def set_params(model: MultimodalModel, params: Mapping[str, Tensor]) -> None:
    """Copy parameters into a model. Parameters that are not given keep their values."""
    state = model.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, value in params.items():
            state[name].copy_(value)
        model.refresh()


def select(params: Mapping[str, Tensor], held: Iterable[Modality]) -> Params:
    """The parameters of a client that holds these modalities: the blocks of the modalities and the shared block."""
    blocks = {SHARED, *held}
    return {name: value for name, value in params.items() if block_of(name) in blocks}
