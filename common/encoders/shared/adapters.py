"""Low-rank adapters in a pre-trained network, by the library peft.

E. J. Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, https://arxiv.org/abs/2106.09685. The
weight of an adapted layer is W + (alpha / rank) B A. W stays fixed; A [rank, inputs] is random at the start, and
B [outputs, rank] is zero, so that the adapted network begins as the pre-trained one.
"""

from collections.abc import Collection

from pydantic import Field
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from common.config.component import Options
from common.encoders.shared.network_blocks import block_names

MARK = "lora_"
"""A part of the name of every tensor of an adapter."""


class Lora(Options):
    """Low-rank adapters (LoRA)."""

    rank: int = Field(8, ge=1, le=1024)
    """Rank of an adapter: the inner size of the product that is added to a weight."""
    alpha: int = Field(16, ge=1)
    """The product is multiplied by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout of an adapter's input in training."""
    targets: tuple[str, ...] | None = Field(None, min_length=1, strict=False)
    """Names, or last parts of names, of the layers that get adapters, e.g. [query, value] in BERT or [attn.qkv] in a
    vision transformer of timm. `null`: all linear layers and all convolutions in the blocks of the network, except
    grouped convolutions and layers of which the network reads only the weights, which cannot have adapters."""


def add_adapters(network: nn.Module, options: Lora, called: Collection[str]) -> None:
    """Add adapters to the layers of a network, in place. called: the names of the modules that the network calls. An
    adapter of another layer would do nothing, because the network reads only the weight of that layer.

    Raises ValueError when the network has no such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = _targets(network, options, called)
    config = LoraConfig(
        r=options.rank, lora_alpha=options.alpha, lora_dropout=options.dropout, target_modules=targets, bias="none"
    )
    inject_adapter_in_model(config, network)


def merge_adapters(network: nn.Module) -> None:
    """Add the product of every adapter to the weight of its layer, and remove the adapters, in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(network.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(network.get_submodule(parent), own, module.get_base_layer())


def _targets(network: nn.Module, options: Lora, called: Collection[str]) -> list[str]:
    everywhere = [name for name, module in network.named_modules() if name in called and _is_adaptable(module)]
    blocks = tuple(f"{block}." for block in block_names(network))
    able = [name for name in everywhere if name.startswith(blocks)] if blocks else everywhere
    if options.targets is None:
        if not able:
            raise ValueError("the network has no layers that can have adapters")
        return able
    chosen = {target: [name for name in everywhere if f".{name}".endswith(f".{target}")] for target in options.targets}
    if lacking := [target for target, found in chosen.items() if not found]:
        ends = sorted({name.rpartition(".")[2] for name in able})
        raise ValueError(f"lora.targets: no layer for an adapter is called {', '.join(lacking)}; some are {ends}")
    return sorted({name for found in chosen.values() for name in found})


def _is_adaptable(module: nn.Module) -> bool:
    """Whether a layer can have an adapter. Subclasses of convolutions cannot, because their adapter would be one of
    them as well, with a padding of its own."""
    if is_parametrized(module):
        return False
    if type(module) in (nn.Conv1d, nn.Conv2d, nn.Conv3d):
        if type(module) is nn.Conv3d and set(module.kernel_size) == {1}:
            return False  # peft cannot merge its adapter
        return module.groups == 1  # type: ignore[return-value]
    return isinstance(module, nn.Linear)
