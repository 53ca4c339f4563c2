"""The one door through which frozen models come into a process: what they are is data, never code, and never fetched.

A model's folder may name code to run, other models to fetch, and files elsewhere. Everything that loads one with
transformers, open_clip, timm or diffusers does so here, after `check`; `lint-imports` sees to it. Nothing here talks to
a model hub: `fedmosaic models fetch` does, when a site's own people call it.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import ModelError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
LARGEST = 16 << 20
"""Bytes of a JSON file that is looked into."""
VOCABULARIES = {"tokenizer.json", "vocab.json", "added_tokens.json"}
"""Large, and without settings."""
CODE = {"auto_map", "trust_remote_code", "custom_pipelines", "custom_pipeline", "custom_generate", "custom_code"}
"""Keys by which a folder names code to run."""
ELSEWHERE = {"base_model_name_or_path", "hf_model_name", "timm_model_pretrained", "use_pretrained_backbone"}
"""Keys by which a folder names weights that are not in it."""
TOKENIZER = {"clean", "strip_sep_token", "language"}
"""Of an open_clip tokenizer's options those that name no file and no code."""
TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
INDEX, PIPELINE = ".index.json", "model_index.json"
POOLER = "pooler"
PARTS = {"diffusers", "transformers"}
"""Libraries that the parts of a pipeline may be classes of."""


def text_model(folder: Path) -> tuple[Any, Any]:
    """A text encoder of transformers, in eval mode, without a pooler where its weights have none, and its tokenizer.

    Raises ModelError.
    """
    check(folder)
    from transformers import AutoModel, AutoTokenizer

    try:
        model, found = AutoModel.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **SEALED)
        tokenizer = AutoTokenizer.from_pretrained(folder, **SEALED)
    except Exception as error:  # nothing but a library's code runs here
        raise _unfit(folder, "a text encoder of transformers", error) from error
    if lacking := {name.split(".")[0] for name in found["missing_keys"]}:
        if lacking != {POOLER}:
            raise _incomplete(folder, found["missing_keys"])
        model.pooler = None  # checkpoints of some language models have none, and a random one is worse than none
    return model.eval().requires_grad_(False), tokenizer


def blip2(folder: Path, device: str) -> tuple[Any, Any]:
    """A BLIP-2 model of transformers, in eval mode, and its processor; of half precision on a GPU.

    Raises ModelError.
    """
    check(folder)
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    try:
        model, found = Blip2ForConditionalGeneration.from_pretrained(
            folder, dtype=_dtype(device), use_safetensors=True, output_loading_info=True, **SEALED
        )
        processor = AutoProcessor.from_pretrained(folder, **SEALED)
    except Exception as error:  # nothing but a library's code runs here
        raise _unfit(folder, "a BLIP-2 model", error) from error
    if found["missing_keys"]:
        raise _incomplete(folder, found["missing_keys"])
    return model.to(device).eval().requires_grad_(False), processor


def pipeline(folder: Path, device: str) -> Any:
    """A text-to-image pipeline of diffusers; of half precision on a GPU.

    Raises ModelError.
    """
    check(folder)
    check_pipeline(folder)
    from diffusers import DiffusionPipeline

    options = {"dtype": _dtype(device), "use_safetensors": True, "low_cpu_mem_usage": False, "local_files_only": True}
    try:
        made = DiffusionPipeline.from_pretrained(folder, **options)
    except Exception as error:  # nothing but a library's code runs here
        raise _unfit(folder, "a pipeline of diffusers", error) from error
    _check_parts(folder, made.components)
    made.set_progress_bar_config(disable=True)
    return made.to(device)


def open_clip_model(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """A model of open_clip in eval mode, its preprocessing of pictures, its tokenizer.

    Raises ModelError.
    """
    check(folder)
    config = open_clip_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder}: there is no {WEIGHTS}")
    import open_clip

    check_open_clip(folder, config)
    where = f"local-dir:{folder}"
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(where, device=device)
        tokenizer = open_clip.get_tokenizer(where)
    except Exception as error:  # nothing but a library's code runs here
        raise _unfit(folder, "a model that open_clip can load", error) from error
    return model.eval().requires_grad_(False), preprocess, tokenizer


def open_clip_config(folder: Path) -> dict[str, Any]:
    """The section `model_cfg` of open_clip_config.json.

    Raises ModelError.
    """
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"{folder}: {CONFIG} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise ModelError(f"{folder}: {CONFIG} cannot be read: model_cfg is no mapping")
    return config


SEALED: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Without the first, transformers asks at the console whether to run code."""


def check(folder: Path) -> None:
    """Raises ModelError when a model's folder names code or weights that are not in it; makes sure that no library of
    this process asks a model hub for anything."""
    seal()
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder}: adapter_config.json: an adapter's weights belong to a model that is not here")
    for path in sorted(folder.rglob("*.json")):
        if path.name.endswith(INDEX):
            _check_index(path)
        elif path.name == PIPELINE and path.parent != folder:
            raise ModelError(f"{path}: a pipeline inside of a model")
        elif path.name not in VOCABULARIES:
            for key, value in _settings(path):
                if value and key in CODE:
                    raise ModelError(f"{path}: {key} names code, and no model's code is run here")
                if value and key in ELSEWHERE:
                    raise ModelError(f"{path}: {key} names weights that are not in the folder, and nothing is fetched")


def _check_index(path: Path) -> None:
    """Raises ModelError when the parts of a model's weights are anything but safetensors files beside their index: by
    other endings they would be unpickled, and by other paths read from anywhere."""
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        names = {str(name) for name in parts}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (path.parent / name).is_file():
            raise ModelError(f"{path}: {name!r} is no safetensors file beside it")


def seal() -> None:
    """Keep the libraries of this process from asking a model hub, whatever its environment says."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # for processes that it starts
    import huggingface_hub.constants as hub

    hub.HF_HUB_OFFLINE = True


def _settings(path: Path) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON file with its value, however deep."""
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path}: settings of more than {LARGEST >> 20} MiB")
    try:
        left = [json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value


def check_open_clip(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises ModelError for settings that open_clip's own architectures do not have, or that name files."""
    from open_clip.coca_model import MultimodalCfg
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    known = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
    for section, kind in known.items():
        given = config.get(section) or {}
        fields: set[str] = set(kind.__dataclass_fields__)
        if not isinstance(given, dict):
            raise ModelError(f"{folder / CONFIG}: {section} is no mapping")
        if unknown := sorted(given.keys() - fields):
            raise ModelError(f"{folder / CONFIG}: {section}: unknown settings {unknown}")
        options = given.get("tokenizer_kwargs") or {}
        if not isinstance(options, dict):
            raise ModelError(f"{folder / CONFIG}: {section}.tokenizer_kwargs is no mapping")
        if unknown := sorted(options.keys() - TOKENIZER):
            raise ModelError(f"{folder / CONFIG}: {section}.tokenizer_kwargs: {unknown} may not be set by a model")
        name = given.get("timm_model_name")
        if name and not (isinstance(name, str) and TIMM_NAME.fullmatch(name)):
            raise ModelError(f"{folder / CONFIG}: {section}.timm_model_name {name!r} is no name of an architecture")


def _check_parts(folder: Path, parts: Mapping[str, Any]) -> None:
    """Raises ModelError when weights of a pipeline's part are not in its files: they would be random."""
    from safetensors import safe_open

    for name, part in parts.items():
        if not hasattr(part, "state_dict") or not (files := list((folder / name).glob("*.safetensors"))):
            continue
        there: set[str] = set()
        for file in files:
            with safe_open(file, "pt") as opened:
                there |= set(opened.keys())
        # Libraries rename what is outside; the last three parts of a name stay.
        tails = set(map(_tail, there))
        lacking = {key for key in part.state_dict() if _tail(key) not in tails}
        if lacking or len(there) < len({value.data_ptr() for value in part.state_dict().values()}):
            raise _incomplete(folder / name, lacking or {"one of several of a name"})


def _tail(name: str) -> str:
    return ".".join(name.split(".")[-3:])


def check_pipeline(folder: Path) -> None:
    """Raises ModelError for a pipeline that is not made of classes of the two libraries."""
    path = folder / "model_index.json"
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        kind, named = parts.get("_class_name"), [v for v in parts.values() if isinstance(v, list)]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(kind, str) or not kind.isidentifier():
        raise ModelError(f"{path}: _class_name {kind!r} is no pipeline of diffusers")
    for part in named:
        if part and part[0] is not None and not (isinstance(part[0], str) and part[0] in PARTS):
            raise ModelError(f"{path}: {part[0]!r} is not a library that parts of a pipeline come from")


def _dtype(device: str) -> Any:
    import torch

    return torch.float16 if device.startswith("cuda") else torch.float32


def _incomplete(folder: Path, lacking: Iterable[str]) -> ModelError:
    """transformers would fill in random weights."""
    names = sorted(lacking)
    return ModelError(f"{folder}: its weights lack {len(names)} tensors of this kind of model, e.g. {names[0]}")


def _unfit(folder: Path, what: str, error: Exception) -> ModelError:
    said = str(error).splitlines() or [type(error).__name__]
    return ModelError(f"{folder}: not {what}: {said[0]}")
