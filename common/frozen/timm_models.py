"""Networks for pictures of the library timm, with random weights or with those of a model's folder.

R. Wightman, "PyTorch Image Models", 2019, https://github.com/huggingface/pytorch-image-models. A folder contains
`model.safetensors` and usually a `config.json` of timm, which names the architecture, its arguments, and the
preprocessing with which the weights were trained.
"""

import difflib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from common.errors import ModelError
from common.frozen.model_door import TIMM_NAME, check, seal

CONFIG, WEIGHTS = "config.json", "model.safetensors"
LIBRARY = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "scriptable",
           "exportable", "no_jit", "features_only", "num_classes", "in_chans"}  # fmt: skip
"""Arguments of timm that a model's folder may not set, because they name files or change the kind of the result."""
LARGEST_SIDE = 1024
SMALLEST_CROP, LARGEST_CROP = 0.1, 2.0
"""The smallest and the largest share of a picture's side that may be left. A picture is resized to the size divided by
this share, and then its borders are cut off, or added with a share of more than 1."""
FILTERS: Mapping[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
"""Pillow's filters by timm's names."""


@dataclass(frozen=True)
class Recipe:
    """How a network is made, and how its pictures are prepared.

    architecture: timm's name. arguments: its arguments, as JSON. folder: the folder of the weights; None for random
    weights. size: (height, width) in pixels. channels: of a picture. mean, deviation: by channel, of values from 0 to
    1. interpolation: "bilinear", "bicubic" or another one of Pillow's filters in lower case. crop: the share of a
    picture's side that is left when its borders are cut off.
    """

    architecture: str
    arguments: str
    folder: Path | None
    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    interpolation: str
    crop: float


def recipe(architecture: str | None, folder: Path | None) -> Recipe:
    """The recipe that the folder's config.json gives; without a folder, or without that file, timm's own recipe of the
    architecture.

    architecture: None for the one that the folder names.

    Raises ModelError.
    """
    given = _config(folder) if folder is not None else {}
    named = given.get("architecture")
    if architecture and named and _plain(architecture) != _plain(named):
        raise ModelError(f"{folder}: these are weights of {named}, not of {architecture}")
    name = architecture or named
    if name is None and folder is None:
        raise ModelError("timm: the option `model` or `pretrained` is needed")
    if name is None:
        raise ModelError(f"{folder}: {CONFIG} names no architecture of timm: give its name in the option `model`")
    return _recipe(_known(name, folder), _arguments(folder, given), folder, given.get("pretrained_cfg") or {})


def network(chosen: Recipe) -> nn.Module:
    """A new network without its classifier. Random weights come from torch's global generator.

    Raises ModelError.
    """
    seal()
    import timm

    options = json.loads(chosen.arguments)
    if chosen.folder is None:
        return _made(chosen, lambda: timm.create_model(chosen.architecture, **options))
    weights = chosen.folder / WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{chosen.folder}: there is no {WEIGHTS}")
    classes = _config(chosen.folder).get("num_classes", 0)
    source = {"file": str(weights), "num_classes": classes, "url": "", "hf_hub_id": None, "custom_load": False}
    return _made(
        chosen,
        lambda: timm.create_model(chosen.architecture, pretrained=True, pretrained_cfg_overlay=source, **options),
    )


def features(made: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features [B, D] and the maps [B, D', H, W] before pooling. Networks of patches without a square grid give
    maps with H = 1."""
    found = made.forward_features(pixels)  # type: ignore[operator]
    pooled: Tensor = made.forward_head(found, pre_logits=True)  # type: ignore[operator]
    if found.dim() == 4:
        maps = found.permute(0, 3, 1, 2) if _channels_last(made) else found
    elif found.dim() == 3:
        patches = found[:, getattr(made, "num_prefix_tokens", 0) :].transpose(1, 2)
        side = round(patches.shape[2] ** 0.5)
        maps = patches.unflatten(2, (side, side) if side * side == patches.shape[2] else (1, -1))
    else:
        maps = pooled[:, :, None, None]
    return pooled.flatten(1), maps


@lru_cache(maxsize=32)
def widths(chosen: Recipe) -> tuple[int, int]:
    """The numbers of pooled features and of channels of the maps, from a pass without weights.

    Raises ModelError when the pictures do not fit the network.
    """
    with torch.device("meta"), torch.no_grad():
        made = network(replace(chosen, folder=None)).eval()
        try:
            pooled, maps = features(made, torch.zeros(2, chosen.channels, *chosen.size))
        except (RuntimeError, ValueError, AssertionError, AttributeError, TypeError) as error:
            where = f"{chosen.size[0]} x {chosen.size[1]} pixels"
            raise ModelError(f"{chosen.architecture} cannot read pictures of {where}: {_first(error)}") from None
    return pooled.shape[1], maps.shape[1]


@lru_cache(maxsize=8)
def cut(chosen: Recipe) -> Callable[[Image.Image], Image.Image]:
    """timm's own resizing and cutting of a picture for the evaluation of the weights."""
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose

    steps = create_transform(
        (chosen.channels, *chosen.size), interpolation=chosen.interpolation, crop_pct=chosen.crop
    ).transforms
    made: Callable[[Image.Image], Image.Image] = Compose(steps[:2])  # the others make a normalised tensor
    return made


def padded(values: Tensor, width: int) -> Tensor:
    """The last dimension filled up with zeros to a width."""
    return F.pad(values, (0, width - values.shape[-1]))


def fitted(chosen: Recipe, size: tuple[int, int] | None = None, channels: int | None = None) -> Recipe:
    """The recipe for pictures of another (height, width), or with another number of channels; None: as it is. A
    network with a fixed size is made for the new one. timm adapts the weights to both."""
    options = json.loads(chosen.arguments)
    if channels is not None and channels != chosen.channels:
        options["in_chans"] = channels
        mean, deviation = (sum(values) / len(values) for values in (chosen.mean, chosen.deviation))
        chosen = replace(chosen, channels=channels, mean=(mean,) * channels, deviation=(deviation,) * channels)
    if size is not None and size != chosen.size:
        if _has_fixed_size(chosen.architecture):
            options["img_size"] = list(size)
        chosen = replace(chosen, size=size)
    return replace(chosen, arguments=json.dumps(options, sort_keys=True))


def _recipe(name: str, arguments: dict[str, Any], folder: Path | None, given: dict[str, Any]) -> Recipe:
    from timm.data.config import resolve_data_config
    from timm.models import get_pretrained_cfg

    own = get_pretrained_cfg(name)
    known = {**(vars(own) if own else {}), **{key: value for key, value in given.items() if value is not None}}
    try:
        found = resolve_data_config(pretrained_cfg=known)  # type: ignore[no-untyped-call]
        channels, height, width = map(int, found["input_size"])
        mean, deviation = (tuple(map(float, found[key])) for key in ("mean", "std"))
        normal = all(map(math.isfinite, (*mean, *deviation))) and min(deviation) > 0
        if channels not in (1, 3) or {len(mean), len(deviation)} != {channels} or not normal:
            raise ValueError(f"{channels} channels, mean {mean}, std {deviation}")
        if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
            raise ValueError(f"pictures of {height} x {width} pixels")
        crop, interpolation = float(found["crop_pct"]), str(found["interpolation"])
        if not SMALLEST_CROP <= crop <= LARGEST_CROP or interpolation not in FILTERS:
            raise ValueError(f"crop_pct {crop:g}, interpolation {interpolation}")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder or name}: the preprocessing of the weights cannot be used: {error}") from None
    return Recipe(name, json.dumps(arguments | {"num_classes": 0}, sort_keys=True), folder, (height, width), channels,
                  mean, deviation, interpolation, crop)  # fmt: skip


def _config(folder: Path) -> dict[str, Any]:
    check(folder)
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder}: {CONFIG} cannot be read: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("pretrained_cfg") or {}, dict):
        raise ModelError(f"{folder}: {CONFIG} is not one of timm")
    if not isinstance(found.get("architecture", ""), str) or not isinstance(found.get("num_classes", 0), int):
        raise ModelError(f"{folder}: {CONFIG} is not one of timm")
    return found


def _arguments(folder: Path | None, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the architecture that the weights need, such as a padding.

    Raises ModelError for arguments that are not plain values.
    """
    arguments = given.get("model_args") or {}
    plain = isinstance(arguments, dict) and all(_is_plain(value) for value in arguments.values())
    if not plain or not {str(name) for name in arguments}.isdisjoint(LIBRARY - {"num_classes", "in_chans"}):
        raise ModelError(f"{folder}: {CONFIG}: model_args may only be numbers and words of the architecture")
    return {str(name): value for name, value in arguments.items() if name not in LIBRARY}


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(part, int | float) for part in value)
    return value is None or isinstance(value, int | float) or (isinstance(value, str) and value.isidentifier())


def _known(name: str, folder: Path | None) -> str:
    from timm.models import is_model, list_models

    if not TIMM_NAME.fullmatch(name) or not is_model(_plain(name)):
        near = difflib.get_close_matches(name, list_models(), n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise ModelError(f"{folder or 'timm'}: {name!r} is not an architecture of the installed timm{hint}")
    return name


def _plain(name: str) -> str:
    """The name of an architecture without the tag of its weights."""
    return name.partition(".")[0]


def _has_fixed_size(name: str) -> bool:
    from timm.models import get_pretrained_cfg

    own = get_pretrained_cfg(name)
    return bool(own and own.fixed_input_size)


def _channels_last(made: nn.Module) -> bool:
    return str(getattr(made, "output_fmt", "NCHW")) == "NHWC"


def _made(chosen: Recipe, make: Any) -> nn.Module:
    try:
        made: nn.Module = make()
    except Exception as error:  # the library may raise any exception; none of our code runs here
        where = f"{chosen.folder}: not weights of" if chosen.folder else "timm cannot make"
        raise ModelError(f"{where} {chosen.architecture}: {_first(error)}") from error
    return made


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
