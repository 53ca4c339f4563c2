"""Whole runs with pre-trained encoders: what travels, other weights at a site, export, prediction."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHARED_DATA, experiment
from safetensors import safe_open
from safetensors.torch import load_file
from test_cli import call
from test_frozen_encoders import ENCODERS, OTHER
from test_pretrained_encoders import Case
from torch import Tensor

from client.site import Site
from common.blocks import block_of, get_params
from common.build import bases, build_model
from common.config.experiment import Experiment
from common.data.shard import Shard
from common.errors import ModelError, RunError
from common.media.values import Raw
from common.models.base import MultimodalModel
from common.split.make import make_shards
from common.trained.predictor import load_model
from common.types import Batch, Origin
from deploy.engines.in_process import InProcessGrid
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation

TIMM = {"name": "timm", "pretrained": "timm", "size": 32, "grid": 1}
EXPORTED = [
    pytest.param(
        case[:3], way, id=f"{case[0]}-{way}",
        marks=[pytest.mark.slow] if case[0] == "torchvision-video" and way in ("all", "last-1-block") else [],
    )
    for case in ENCODERS if case[0] != "mixed" for way in ("frozen", "all", "last-1-block", "lora")
]  # fmt: skip
"""Every encoder, trained in every way. The smallest video network of torchvision is large."""
REAL = SHARED_DATA.parent / "models" / "mobilenetv2-imagenet"


def run(chosen: Experiment, shards: Path, folder: Path, sites: list[Site] | None = None) -> Federation:
    grid = InProcessGrid(sites or [Site(shards / "client-0"), Site(shards / "client-1")])
    federation = Federation(chosen, grid, shards / "test", RunFolder(folder, chosen))
    federation.run()
    return federation


def adapted(**more: Any) -> Experiment:
    return experiment(model__encoders__image={**TIMM, "train": "lora", "lora": {"rank": 2}, **more})


@pytest.fixture(scope="module")
def lora_run(models_folder: Path, tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lora") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDMOSAIC_MODELS", str(models_folder))
        federation = run(adapted(), tiny_shards, folder)
        (folder / "summary.json").write_text(json.dumps({**federation.summary(), "status": "completed"}))
        (folder / "experiment.yaml").write_text(adapted().to_yaml())
        yield folder


class TestWhatTravels:
    def test_of_an_adapted_encoder_exactly_its_adapters(self, lora_run: Path) -> None:
        sent = load_file(lora_run / "model.safetensors")
        encoder = {name: value for name, value in sent.items() if name.startswith("branches.image.encoder.")}
        assert encoder and all("lora_" in name for name in encoder)
        whole = build_model(experiment(model__encoders__image={**TIMM, "train": "all"}), 10)
        shapes = {name: value.shape for name, value in whole.encoder("image").state_dict().items()}
        count = 0
        for name, shape in shapes.items():
            layer = name.removesuffix(".weight")
            if f"branches.image.encoder.{layer}.lora_A.default.weight" in encoder:
                assert shape[2:] == (1, 1)  # the convolutions of this network that are not grouped
                count += 2 * (shape[0] + shape[1])
        assert sum(value.numel() for value in encoder.values()) == count
        line = json.loads((lora_run / "metrics.jsonl").read_text().splitlines()[-1])
        travelled = [value for said in line["clients"].values() for name, value in sent.items()
                     if block_of(name) in {*said["modalities"], "shared"}]  # fmt: skip
        values = sum(4 * value.numel() for value in travelled)
        assert values < line["bytes_up"] < values + 256 * len(travelled)  # each tensor has a header

    def test_adapters_are_trained(self, lora_run: Path) -> None:
        initial = get_params(build_model(adapted(), 10))
        now = load_file(lora_run / "model.safetensors")
        assert now.keys() == initial.keys()
        assert all(not torch.equal(now[name], initial[name]) for name in now if "lora_B" in name)


class Elsewhere(Site):
    """A site with other weights."""

    def introduce(self, request: Any) -> dict[str, Any]:
        return {**super().introduce(request), "bases": {"image": "timm None 0123"}}


class TestOtherWeights:
    def test_a_site_with_others_is_refused_by_name(self, models: Path, tiny_shards: Path, tmp_path: Path) -> None:
        both = [Site(tiny_shards / f"client-{index}") for index in range(2)]
        full = next(index for index, site in enumerate(both) if "image" in site.shard().info.modalities)
        sites: list[Site] = [*both]
        sites[full] = Elsewhere(both[full].folder)
        with pytest.raises(RunError, match=rf"client-{full}: its pre-trained weights for image are not the server's"):
            run(adapted(), tiny_shards, tmp_path / "strict", sites)

    def test_a_changed_folder_is_another_one(
        self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(models, tmp_path / "models")
        before = bases(adapted().model)
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path / "models"))
        assert bases(adapted().model) == before
        config = tmp_path / "models" / "timm" / "config.json"
        config.write_text(config.read_text().replace("bilinear", "bicubic"))
        assert bases(adapted().model) != before

    def test_an_encoder_has_the_weights_that_it_says_also_after_its_files_changed(
        self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(models / "timm", tmp_path / "timm")
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
        before = build_model(adapted(), 10).encoder("image")
        said = before.base
        config = tmp_path / "timm" / "config.json"
        config.write_text(config.read_text().replace("bilinear", "bicubic"))
        assert before.base == said != build_model(adapted(), 10).encoder("image").base

    def test_a_saved_model_is_refused_with_other_weights(
        self, lora_run: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copytree(models / "timm", tmp_path / "timm")
        config = tmp_path / "timm" / "config.json"
        config.write_text(config.read_text().replace("bilinear", "bicubic"))
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
        with pytest.raises(ModelError, match="the pre-trained encoder of image has other weights here"):
            load_model(lora_run)


class TestExport:
    @pytest.mark.parametrize("merged", [False, True])
    def test_a_saved_model_predicts_the_same(
        self, merged: bool, lora_run: Path, tiny_shards: Path, tmp_path: Path
    ) -> None:
        more = ["--merge"] if merged else []
        assert call("export", lora_run, "--out", tmp_path / "model", *more) == 0
        with safe_open(tmp_path / "model" / "model.safetensors", "pt") as file:
            names = set(file.keys())
        assert any("lora_" in name for name in names) != merged
        examples = [record.files for record in Shard.open(tiny_shards / "test").records[:8]]
        wanted = load_model(lora_run).predict(examples)
        found = load_model(tmp_path / "model").predict(examples)
        for one, other in zip(wanted, found, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert "does not contain all pre-trained weights" in (tmp_path / "model" / "README.md").read_text()

    def test_nothing_to_merge_is_an_error(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        chosen = experiment()
        model = build_model(chosen, 10)
        RunFolder(tmp_path / "run", chosen).model(get_params(model), chosen, tuple("0123456789"))
        assert call("export", tmp_path / "run", "--out", tmp_path / "other", "--merge") == 2
        assert "the model has no adapters to merge" in capsys.readouterr().err
        assert not (tmp_path / "other").exists()

    @pytest.mark.usefixtures("models")
    @pytest.mark.parametrize(("case", "way"), EXPORTED)
    def test_a_model_of_every_encoder_is_loaded_with_common_alone(self, case: Case, way: str, tmp_path: Path) -> None:
        reference = {"name": case[0], **case[1], "train": way}
        chosen = experiment(model={"encoders": {"some": reference}}, method="fedavg", data={"clients": 2})
        model = build_model(chosen, 3).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 50)
        RunFolder(tmp_path / "run", chosen).model(get_params(model), chosen, ("a", "b", "c"))
        found = load_model(tmp_path / "run")
        for value in (case[2], OTHER[type(case[2])]):
            (prediction,) = found.predict([{"some": value}])
            wanted = _logits(model, value).softmax(0).tolist()
            assert list(prediction.probabilities.values()) == pytest.approx(wanted, abs=1e-4)


def _logits(model: MultimodalModel, value: Raw) -> Tensor:
    inputs = model.encoder("some").prepare(value)[None]
    batch = Batch({"some": inputs}, {"some": torch.tensor([int(Origin.OBSERVED)])}, torch.zeros(1, dtype=torch.int64))
    return model.predict(batch)[0].detach().double()


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the weights of MobileNetV2 are not on this machine")
def test_real_weights_tell_real_photographs_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A linear layer on frozen features of a few photographs is better than a small network on pixels."""
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(REAL.parent))
    accuracy = {}
    encoders = {
        "pretrained": {"name": "timm", "pretrained": REAL.name, "size": 160, "grid": 1},
        "pixels": {"name": "image", "size": 32, "channels": 3},
    }
    for name, encoder in encoders.items():
        chosen = experiment(
            data={"set": {"name": "fashion", "folder": str(SHARED_DATA / "fashion"), "min_per_class": 50},
                  "clients": 2, "limit": 300, "test_limit": 150},
            model={"encoders": {"image": encoder}}, method="fedavg",
            train={"epochs": 5, "lr": 0.01, "batch_size": 16}, federation={"rounds": 2},
        )  # fmt: skip
        make_shards(chosen, tmp_path / name)
        accuracy[name] = run(chosen, tmp_path / name, tmp_path / f"{name}-run").summary()["scores"]["image"]
    assert accuracy["pretrained"] > accuracy["pixels"] + 0.02
