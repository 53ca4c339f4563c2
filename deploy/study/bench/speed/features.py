"""An epoch of FedMVP with cached frozen features, compared with computing the features again."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file

from client.train import train
from common.build import build_model
from common.config.experiment import Experiment
from common.config.reading import parse
from common.data.loader import load
from common.data.shard import Shard
from common.encoders.base import Encoder
from common.frozen.model_door import CONFIG, WEIGHTS
from common.frozen.pretrained import VARIABLE
from common.hardware.computing import compute_deterministically
from common.seeding import seeded
from common.split.make import client_name, make_shards
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample

MODEL = "clip-vit-b-16"
SMALL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class Features(Measurement):
    """Times of two epochs that read the shard and train the joint model on one thread. The towers' weights are loaded
    before."""

    name: ClassVar[str] = "features"
    what: ClassVar[str] = "FedMVP epoch with cached features, CLIP ViT-B/16; stock: features computed again"
    unit: ClassVar[str] = "s"
    ratio: ClassVar[str] = "stock / ours"
    goal: ClassVar[Goal] = Goal("at least", 20)

    def samples(self, repeats: int, work: Path) -> Iterator[Sample]:
        """Time one epoch of each kind per repeat."""
        compute_deterministically()
        with _models_in(work / "models"):
            _save_model(work / "models" / MODEL, self.small)
            chosen = _experiment(4 if self.small else 24)
            make_shards(chosen, work / "shards")
            folder = work / "shards" / client_name(0)
            _epoch(chosen, folder)
            for _ in range(repeats):
                shutil.rmtree(folder / "cache")
                anew, cached = _epoch(chosen, folder), _epoch(chosen, folder)
                yield Sample(anew, cached, anew / cached)


def _epoch(experiment: Experiment, folder: Path) -> float:
    """The seconds of an epoch."""
    model = build_model(experiment, 48)
    started = time.perf_counter()
    encoders: Mapping[str, Encoder] = {m: model.encoder(m) for m in model.modalities}
    examples = load(Shard.open(folder), encoders).examples
    train(model, examples, experiment, 1, "bench")
    return time.perf_counter() - started


def _experiment(examples: int) -> Experiment:
    raw: dict[str, Any] = {
        "name": "bench-features",
        "data": {"set": {"name": "birds-mini", "train_per_class": 1, "test_per_class": 1}, "clients": 1},
        "model": {
            "encoders": {
                "image": {"name": "open-clip-image", "model": MODEL},
                "text": {"name": "open-clip-text", "model": MODEL},
            },
            "architecture": {"name": "joint", "width": 48, "depth": 1, "joint_heads": 4},
        },
        "method": "fedmvp",
        "train": {"batch_size": 32, "lr": 0.003, "optimizer": "adamw"},
        "federation": {"rounds": 1},
    }
    raw["data"] |= {"limit": examples, "test_limit": 2, "validation": 0.0}
    return parse(raw, "bench speed")


def _save_model(folder: Path, small: bool) -> None:
    """Save CLIP with random weights in open_clip's format."""
    import open_clip

    config = SMALL if small else open_clip.get_model_config("ViT-B-16")
    with seeded(0, "bench features"):
        model = open_clip.CLIP(**config)
    folder.mkdir(parents=True)
    about = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / CONFIG).write_text(json.dumps(about), encoding="utf-8")
    state: dict[str, torch.Tensor] = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)


@contextmanager
def _models_in(folder: Path) -> Iterator[None]:
    """Set the folder of frozen models for the duration of a `with` block."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
