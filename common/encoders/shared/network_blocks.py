"""The blocks of a network, e.g. the layers of a transformer, and networks of which only a part is trained."""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

CONTAINERS = (nn.ModuleList, nn.Sequential)


def block_names(network: nn.Module) -> list[str]:
    """The names of the blocks, in the order in which the network registers them.

    A block is a module with parts of its own that is in a list of modules (`nn.ModuleList`, `nn.Sequential`), and in
    no other block: a layer of a transformer, a residual block of a ResNet, a stage of a hierarchical network. In a
    network without such lists, a module whose parts are all of the same kind is a list.
    """
    return list(_blocks(network, "", _is_list)) or list(_blocks(network, "", _is_alike))


def _blocks(module: nn.Module, prefix: str, is_list: Callable[[nn.Module], bool]) -> Iterator[str]:
    for name, child in module.named_children():
        inner = f"{prefix}{name}."
        if is_list(module) and not is_list(child) and any(True for _ in child.children()):
            yield inner.removesuffix(".")
        else:
            yield from _blocks(child, inner, is_list)


def _is_list(module: nn.Module) -> bool:
    return isinstance(module, CONTAINERS)


def _is_alike(module: nn.Module) -> bool:
    children = list(module.children())
    return len(children) > 1 and len({type(child) for child in children}) == 1


def block_numbers(network: nn.Module) -> dict[str, int]:
    """For each parameter the number of its block, from 0. A parameter between two blocks has the number of the earlier
    block. A parameter before all blocks has -1, and so have embeddings, wherever the network registers them."""
    blocks = block_names(network)
    embeddings = {id(value) for module in network.modules() if isinstance(module, nn.Embedding)
                  for value in module.parameters()}  # fmt: skip
    numbers: dict[str, int] = {}
    current = -1
    for name, value in network.named_parameters():
        inside = (number for number, block in enumerate(blocks) if name.startswith(f"{block}."))
        current = next(inside, current)
        numbers[name] = -1 if id(value) in embeddings else current
    return numbers


def hold_fixed(network: nn.Module, trained: Collection[str]) -> None:
    """Make every parameter that is not trained a buffer that is no part of the state, in place. trained: the names of
    the other parameters.

    Such a tensor still moves with the network between devices. But no optimizer and no message contains it, and
    `requires_grad_` of the whole network does not reach it. Running statistics are held fixed in the same way.
    """
    kept = {id(value) for name, value in network.named_parameters() if name in trained}  # a tied one has two names
    for module in list(network.modules()):
        for name, value in list(module.named_parameters(recurse=False)):
            if id(value) in kept:
                value.requires_grad_(True)
                continue
            delattr(module, name)
            module.register_buffer(name, value.detach(), persistent=False)
        module._non_persistent_buffers_set.update(module._buffers)


def rest_fixed(network: nn.Module) -> None:
    """Make the fixed parts compute as in prediction: parts without any trained weight (no dropout), and batch
    normalisation, which uses the statistics of the pre-trained weights."""
    for module in _fixed(network):
        module.eval()


def _fixed(module: nn.Module) -> Iterator[nn.Module]:
    if isinstance(module, _BatchNorm) or (_holds_tensors(module) and not any(True for _ in module.parameters())):
        yield module
        return
    for child in module.children():
        yield from _fixed(child)


def _holds_tensors(module: nn.Module) -> bool:
    return any(True for _ in module.buffers())


@dataclass(frozen=True)
class Used:
    """The parts of a network on which its output depends, by name: the modules that it calls, and the parameters."""

    modules: frozenset[str]
    parameters: frozenset[str]


def used_by(network: nn.Module, outputs: Callable[[], Iterable[Tensor]]) -> Used:
    """The parts that `outputs`, which runs the network, depends on. A network may have others: the head of a task, a
    mask of its pre-training, layers of which it reads only the weights."""
    called = set[str]()
    hooks = [module.register_forward_hook(partial(_note, called, name)) for name, module in network.named_modules()]
    modes = {module: module.training for module in network.modules()}
    network.eval().requires_grad_(True)
    try:
        with torch.enable_grad():
            torch.stack([output.float().sum() for output in outputs()]).sum().backward()  # type: ignore[no-untyped-call]
        with_gradient = {name for name, value in network.named_parameters() if value.grad is not None}
    finally:
        network.zero_grad()
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    return Used(frozenset(called), frozenset(with_gradient))


def _note(called: set[str], name: str, *_: object) -> None:
    called.add(name)
