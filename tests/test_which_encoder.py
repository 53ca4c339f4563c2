"""docs/how-to/which-encoder.md: its numbers are those of the networks, its experiments can be built."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from conftest import ROOT
from pages import files
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import get_model_weights

from common.config.component import build
from common.config.reading import parse
from common.encoders.base import FrozenEncoder
from common.encoders.shared.trained_tower import TrainedTower
from common.media.sounds import Sound

PAGE = (ROOT / "docs" / "how-to" / "which-encoder.md").read_text()
EXPERIMENTS = files(PAGE)
STAND_INS = {
    "timm/mobilenetv2_100.ra_in1k": "timm",
    "timm/efficientnet_b0.ra_in1k": "timm",
    "sentence-transformers/all-MiniLM-L6-v2": "bert",
    "facebook/wav2vec2-base-960h": "wav2vec2",
    "r3d-18": "r3d",
}
"""The tiny models in the places of the weights that the page names."""
LARGE = ("videos.yaml", "speech.yaml")
"""The experiments whose inputs are large, so that their encoders take seconds."""
VIT = "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"
VALUES = {
    "audio": Sound(np.sin(np.arange(16_000, dtype=np.float32) / 9)[:, None], 16_000),
    "image": Image.linear_gradient("L").convert("RGB"),
    "text": "a small bird",
    "video": np.zeros((4, 24, 24, 3), np.uint8),
}


@pytest.fixture
def weights(models_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models with the names of the page."""
    for name, tiny in STAND_INS.items():
        shutil.copytree(models_folder / tiny, tmp_path / name)
    sizes = {"depth": 2, "embed_dim": 24, "num_heads": 2}
    (tmp_path / VIT).mkdir()
    save_file(timm.create_model("vit_base_patch16_224", **sizes).state_dict(), tmp_path / VIT / "model.safetensors")
    config = {"architecture": "vit_base_patch16_224", "num_classes": 1000, "model_args": sizes}
    (tmp_path / VIT / "config.json").write_text(json.dumps(config))
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
    return tmp_path


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in EXPERIMENTS]
)
def test_the_experiments_can_be_built(name: str) -> None:
    experiment = parse(yaml.safe_load(EXPERIMENTS[name]), name)
    pretrained = 0
    for modality, chosen in experiment.model.encoders.items():
        encoder: Any = build("encoder", chosen).build()
        pretrained += isinstance(encoder, FrozenEncoder | TrainedTower)
        inputs = torch.stack([encoder.prepare(VALUES[modality])] * 2)
        assert encoder.train()(inputs).shape == (2, encoder.width)
        if isinstance(encoder, TrainedTower):
            trained, fixed = ({name for name, _ in values} for values in
                              (encoder.named_parameters(), encoder.named_buffers()))  # fmt: skip
            assert trained
            assert fixed or encoder.options.train == "all"
    assert pretrained


def test_every_part_of_the_page_has_an_experiment() -> None:
    assert len(EXPERIMENTS) == 6
    used = {encoder["name"] for text in EXPERIMENTS.values()
            for encoder in yaml.safe_load(text)["model"]["encoders"].values()}  # fmt: skip
    assert {"timm", "timm-spectrogram", "transformers-text", "transformers-sound", "torchvision-video"} <= used
    assert "KINETICS400_V1" in get_model_weights("r3d_18").__members__


@pytest.mark.slow  # it makes thirty networks, without weights
def test_the_sizes_are_those_of_the_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "docs" / "hooks"), *sys.path])
    from encoder_sizes import table

    missing = [line for line in table() if line not in PAGE]
    assert not missing, "python docs/hooks/encoder_sizes.py"
