"""Loads all frozen models. Models are data: this module runs no code from a model's folder and fetches nothing.

The folder of a model may refer to code to run, to other models to fetch, and to files elsewhere. Therefore all code
that loads a model with transformers, open_clip, timm or diffusers is in this module and calls `check` first;
`lint-imports` enforces this. This module never contacts a model hub. Only `fedmosaic models fetch` does, which the
site's staff run.
"""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import ModelError

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
LARGEST = 16 << 20
"""The maximum size in bytes of a JSON file with settings."""
VOCABULARIES = {"tokenizer.json", "vocab.json", "added_tokens.json"}
"""Large files without settings, which are not checked."""
CODE = {"auto_map", "trust_remote_code", "custom_pipelines", "custom_pipeline", "custom_generate", "custom_code"}
"""Keys that refer to code to run."""
ELSEWHERE = {"base_model_name_or_path", "hf_model_name", "timm_model_pretrained", "use_pretrained_backbone"}
"""Keys that refer to weights outside the folder."""
TOKENIZER = {"clean", "strip_sep_token", "language"}
"""The options of an open_clip tokenizer that refer to no file and no code."""
TIMM_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")
INDEX, PIPELINE = ".index.json", "model_index.json"
POOLER = "pooler"
TEXT, SOUND = "a text encoder of transformers", "a sound encoder of transformers"
UNREAD = "masked_spec_embed"
"""A tensor that sound encoders use only in their own augmentation, which is switched off. Some checkpoints, e.g.
facebook/wav2vec2-base-960h, lack it."""
PARTS = {"diffusers", "transformers"}
"""The libraries that may provide the classes of a pipeline's parts."""


def text_model(folder: Path) -> tuple[Any, Any]:
    """A text encoder of transformers in eval mode, and its tokenizer. If the weights contain no pooler, the encoder has
    none.

    Raises ModelError.
    """
    tokenizer = tokenizer_of(folder)
    model, lacking = _encoder(folder, TEXT)
    if lacking:
        if {name.split(".")[0] for name in lacking} != {POOLER}:
            raise _incomplete(folder, lacking)
        model.pooler = None  # some checkpoints contain no pooler, and a random pooler is worse than none
    return model.eval().requires_grad_(False), tokenizer


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer of a text encoder.

    Raises ModelError.
    """
    from transformers import AutoTokenizer

    return _loaded(folder, TEXT, AutoTokenizer)


def sound_model(folder: Path) -> tuple[Any, Any]:
    """A sound encoder of transformers in eval mode, and its feature extractor. If the model has more parts (CLAP,
    Whisper), only its encoder of sounds is returned.

    Raises ModelError.
    """
    extractor = extractor_of(folder)
    model, missing = _encoder(folder, SOUND)
    if lacking := [name for name in missing if name.rpartition(".")[2] != UNREAD]:
        raise _incomplete(folder, lacking)
    return getattr(model, "audio_model", model).eval().requires_grad_(False), extractor


def extractor_of(folder: Path) -> Any:
    """The feature extractor of a sound encoder.

    Raises ModelError.
    """
    from transformers import AutoFeatureExtractor

    return _loaded(folder, SOUND, AutoFeatureExtractor)


def _encoder(folder: Path, what: str) -> tuple[Any, Collection[str]]:
    """A model of transformers, without its decoder if it has one, and the names of the tensors that its weights
    lack."""
    from transformers import AutoModel

    model, found = _loaded(folder, what, AutoModel, use_safetensors=True, output_loading_info=True)
    return (model.get_encoder() if model.config.is_encoder_decoder else model), found["missing_keys"]


def _loaded(folder: Path, what: str, kind: Any, **options: Any) -> Any:
    check(folder)
    try:
        return kind.from_pretrained(folder, **SEALED, **options)
    except Exception as error:  # the library may raise any exception; none of our code runs here
        raise _unfit(folder, what, error) from error


def blip2(folder: Path, device: str) -> tuple[Any, Any]:
    """A BLIP-2 model of transformers in eval mode, and its processor. On a GPU the model has half precision.

    Raises ModelError.
    """
    check(folder)
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    try:
        model, found = Blip2ForConditionalGeneration.from_pretrained(
            folder, dtype=_dtype(device), use_safetensors=True, output_loading_info=True, **SEALED
        )
        processor = AutoProcessor.from_pretrained(folder, **SEALED)
    except Exception as error:  # the library may raise any exception; none of our code runs here
        raise _unfit(folder, "a BLIP-2 model", error) from error
    if found["missing_keys"]:
        raise _incomplete(folder, found["missing_keys"])
    return model.to(device).eval().requires_grad_(False), processor


def pipeline(folder: Path, device: str) -> Any:
    """A text-to-image pipeline of diffusers. On a GPU it has half precision.

    Raises ModelError.
    """
    check(folder)
    check_pipeline(folder)
    from diffusers import DiffusionPipeline

    options = {"dtype": _dtype(device), "use_safetensors": True, "low_cpu_mem_usage": False, "local_files_only": True}
    try:
        made = DiffusionPipeline.from_pretrained(folder, **options)
    except Exception as error:  # the library may raise any exception; none of our code runs here
        raise _unfit(folder, "a pipeline of diffusers", error) from error
    _check_parts(folder, made.components)
    made.set_progress_bar_config(disable=True)
    return made.to(device)


def open_clip_model(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """A model of open_clip in eval mode, its preprocessing of pictures, and its tokenizer. device: "meta" for a model
    without weights.

    Raises ModelError.
    """
    check(folder)
    config = open_clip_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise ModelError(f"{folder}: there is no {WEIGHTS}")
    import open_clip
    import torch

    check_open_clip(folder, config)
    where = f"local-dir:{folder}"
    try:
        with torch.device(device):
            model, _, preprocess = open_clip.create_model_and_transforms(
                where, device=device, load_weights=device != "meta"
            )
        tokenizer = open_clip.get_tokenizer(where)
    except Exception as error:  # the library may raise any exception; none of our code runs here
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
        raise ModelError(f"{folder}: {CONFIG} cannot be read: model_cfg is not a mapping")
    return config


SEALED: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True}
"""Options of `from_pretrained`. Without `trust_remote_code`, transformers asks on the console whether to run code."""


def check(folder: Path) -> None:
    """Raises ModelError when a model's folder refers to code, or to weights outside the folder. From then on, no
    library of this process contacts a model hub."""
    seal()
    if (folder / "adapter_config.json").exists():
        raise ModelError(f"{folder}: adapter_config.json: the folder contains an adapter, which needs another model")
    for path in sorted(folder.rglob("*.json")):
        if path.name.endswith(INDEX):
            _check_index(path)
        elif path.name == PIPELINE and path.parent != folder:
            raise ModelError(f"{path}: a model's folder must not contain another pipeline")
        elif path.name not in VOCABULARIES:
            for key, value in _settings(path):
                if value and key in CODE:
                    raise ModelError(f"{path}: {key} refers to code, but code of a model is never run")
                if value and key in ELSEWHERE:
                    raise ModelError(f"{path}: {key} refers to weights outside the folder, which are never fetched")


def _check_index(path: Path) -> None:
    """Raises ModelError unless all parts of a model's weights are safetensors files in the folder of their index. Files
    with other endings would be unpickled, and other paths could be anywhere on the machine."""
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        names = {str(name) for name in parts}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (path.parent / name).is_file():
            raise ModelError(f"{path}: {name!r} is not a safetensors file in the same folder")


def seal() -> None:
    """Prevent the libraries of this process from contacting a model hub, regardless of environment variables."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # for child processes
    import huggingface_hub.constants as hub

    hub.HF_HUB_OFFLINE = True


def _settings(path: Path) -> Iterator[tuple[str, Any]]:
    """Every key of a JSON file with its value, at every depth."""
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path}: the file is larger than {LARGEST >> 20} MiB, the limit for settings")
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
    """Raises ModelError for settings that are unknown to open_clip's architectures or refer to files."""
    from open_clip.coca_model import MultimodalCfg
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg

    known = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
    for section, kind in known.items():
        given = config.get(section) or {}
        fields: set[str] = set(kind.__dataclass_fields__)
        if not isinstance(given, dict):
            raise ModelError(f"{folder / CONFIG}: {section} is not a mapping")
        if unknown := sorted(given.keys() - fields):
            raise ModelError(f"{folder / CONFIG}: {section}: unknown settings {unknown}")
        options = given.get("tokenizer_kwargs") or {}
        if not isinstance(options, dict):
            raise ModelError(f"{folder / CONFIG}: {section}.tokenizer_kwargs is not a mapping")
        if unknown := sorted(options.keys() - TOKENIZER):
            raise ModelError(f"{folder / CONFIG}: {section}.tokenizer_kwargs: a model may not set {unknown}")
        name = given.get("timm_model_name")
        if name and not (isinstance(name, str) and TIMM_NAME.fullmatch(name)):
            where = f"{folder / CONFIG}: {section}.timm_model_name"
            raise ModelError(f"{where} {name!r} is not the name of an architecture")


def _check_parts(folder: Path, parts: Mapping[str, Any]) -> None:
    """Raises ModelError when the files of a pipeline's part lack weights, because these weights would be random."""
    from safetensors import safe_open

    for name, part in parts.items():
        if not hasattr(part, "state_dict") or not (files := list((folder / name).glob("*.safetensors"))):
            continue
        there: set[str] = set()
        for file in files:
            with safe_open(file, "pt") as opened:
                there |= set(opened.keys())
        # Libraries rename the outer parts of a name; the last three parts stay the same.
        tails = set(map(_tail, there))
        lacking = {key for key in part.state_dict() if _tail(key) not in tails}
        if lacking or len(there) < len({value.data_ptr() for value in part.state_dict().values()}):
            raise _incomplete(folder / name, lacking or {"one of several tensors with the same name"})


def _tail(name: str) -> str:
    return ".".join(name.split(".")[-3:])


def check_pipeline(folder: Path) -> None:
    """Raises ModelError for a pipeline with classes of other libraries than diffusers and transformers."""
    path = folder / "model_index.json"
    try:
        parts = json.loads(path.read_text(encoding="utf-8"))
        kind, named = parts.get("_class_name"), [v for v in parts.values() if isinstance(v, list)]
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from None
    if not isinstance(kind, str) or not kind.isidentifier():
        raise ModelError(f"{path}: _class_name {kind!r} is not a pipeline of diffusers")
    for part in named:
        if part and part[0] is not None and not (isinstance(part[0], str) and part[0] in PARTS):
            raise ModelError(f"{path}: parts from the library {part[0]!r} are not allowed in a pipeline")


def _dtype(device: str) -> Any:
    import torch

    return torch.float16 if device.startswith("cuda") else torch.float32


def _incomplete(folder: Path, lacking: Iterable[str]) -> ModelError:
    """The error for weights that lack tensors, because transformers would fill in random values."""
    names = sorted(lacking)
    return ModelError(f"{folder}: the weights lack {len(names)} tensors of this kind of model, e.g. {names[0]}")


def _unfit(folder: Path, what: str, error: Exception) -> ModelError:
    said = str(error).splitlines() or [type(error).__name__]
    return ModelError(f"{folder}: not {what}: {said[0]}")
