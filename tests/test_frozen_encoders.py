"""Frozen encoders on tiny random instances of their libraries' models, and the cache of their features."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from conftest import experiment
from PIL import Image
from safetensors.torch import load_file, save_file

from common.build import build_model
from common.config.component import build, find, own_names
from common.data.batches import batches
from common.data.loader import load
from common.data.prepared import frozen
from common.data.prepared.mapped import Mapped
from common.data.shard import Shard
from common.encoders.base import FrozenEncoder
from common.encoders.mixed import MixedEncoder
from common.encoders.shared.tower_options import TowerOptions
from common.errors import ModelError
from common.frozen.pretrained import locate
from common.media.sounds import Sound
from common.media.values import Raw
from common.rows import Rows
from common.split.make import make_shards
from common.types import Origin
from fedmosaic.testing.encoders import RAWS

PICTURE = Image.fromarray(np.arange(48 * 40 * 3, dtype=np.uint8).reshape(48, 40, 3))
TEXT = "this bird has a red crown"
SOUND, FRAMES = RAWS["a recording"], RAWS["frames"]
ENCODERS: list[tuple[str, dict[str, Any], Raw, int]] = [
    ("open-clip-image", {"model": "coca"}, PICTURE, 16),
    ("open-clip-image", {"model": "clip", "grid": 2}, PICTURE, 4),
    ("open-clip-text", {"model": "coca"}, TEXT, 8),
    ("open-clip-text", {"model": "clip"}, TEXT, 8),
    ("transformers-text", {"model": "bert", "length": 12}, TEXT, 8),
    ("transformers-text", {"model": "clip_text", "length": 12}, TEXT, 8),
    ("transformers-text", {"model": "bert", "length": 12, "pooling": "mean"}, TEXT, 8),
    ("vision-transformer", {"model": "vision_transformer", "heads": 2, "grid": 2}, PICTURE, 4),
    ("timm", {"pretrained": "timm", "grid": 2}, PICTURE, 4),
    ("timm-spectrogram", {"pretrained": "timm", "seconds": 0.5, "n_mels": 40, "grid": 2}, SOUND, 4),
    ("torchvision-video", {"pretrained": "r3d", "frames": 4, "size": 32}, FRAMES, 1),
    ("transformers-sound", {"model": "wav2vec2", "seconds": 0.7, "parts": 4}, SOUND, 3),
    ("transformers-sound", {"model": "ast", "parts": 4}, SOUND, 4),
    ("transformers-sound", {"model": "whisper", "parts": 4}, SOUND, 2),
    ("transformers-sound", {"model": "clap", "parts": 4}, SOUND, 4),
    ("mixed", {"members": [{"name": "open-clip-image", "model": model} for model in ("coca", "clip")]}, PICTURE, 16),
]


OTHER: dict[type, Raw] = {
    str: "blue",
    Image.Image: Image.new("RGB", (9, 9)),
    Sound: Sound(np.sin(np.arange(3000, dtype=np.float32) / 3)[:, None], 8000),
    np.ndarray: np.zeros((3, 8, 8, 3), np.uint8),
}
"""Other values of the same kinds."""


def test_every_frozen_encoder_is_here() -> None:
    frozen = {name for name in own_names("encoder") if issubclass(find("encoder", name), TowerOptions)}
    assert frozen | {"mixed"} == {name for name, *_ in ENCODERS}


def encoder(name: str, options: dict[str, Any]) -> FrozenEncoder:
    made: FrozenEncoder = build("encoder", {"name": name, **options}).build()
    return made


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize(("name", "options", "raw", "real"), ENCODERS, ids=lambda value: str(value)[:40])
class TestEveryEncoder:
    def test_features_have_a_scale_of_their_own_and_padding_is_told_apart(
        self, name: str, options: dict[str, Any], raw: Raw, real: int
    ) -> None:
        one = encoder(name, options)
        prepared = one.prepare(raw)
        assert prepared.shape == one.blank().shape == (1 + one.length, one.width)
        assert prepared.dtype == one.blank().dtype == torch.float16
        pooled, (tokens, mask) = one(prepared[None]), one.tokens(prepared[None])
        assert pooled.shape == (1, one.width)
        own = one.columns if isinstance(one, MixedEncoder) else slice(None)
        assert pooled[:, own].square().mean().item() == pytest.approx(1, rel=1e-2)
        assert mask.sum() == real
        assert not tokens[~mask].any()
        assert tokens[mask][:, own].square().mean(1) == pytest.approx(torch.ones(real), rel=1e-2)

    def test_nothing_of_it_is_a_parameter_and_another_kind_of_value_is_refused(
        self, name: str, options: dict[str, Any], raw: Raw, real: int
    ) -> None:
        one = encoder(name, options)
        assert not one.state_dict()
        assert one.prepare(raw) is not None  # the tower is loaded now
        assert not one.state_dict()
        with pytest.raises(ValueError, match=r"(is|are) needed, not"):
            one.prepare(TEXT if raw is PICTURE else PICTURE)

    def test_values_do_not_influence_each_other(self, name: str, options: dict[str, Any], raw: Raw, real: int) -> None:
        one = encoder(name, options)
        other = OTHER[type(raw)]
        both = one.extract(torch.stack([one.tower.inputs(value) for value in (raw, other)]))
        assert torch.allclose(both[0], one.prepare(raw).float(), atol=2e-3)
        assert not torch.allclose(both[0], both[1], atol=1e-2)


@pytest.mark.usefixtures("models")
def test_a_clip_towers_pooled_features_are_the_ones_open_clip_gives() -> None:
    one = encoder("open-clip-image", {"model": "clip", "grid": 2})
    loaded = one.tower.loaded  # type: ignore[attr-defined]
    expected = loaded.model.encode_image(loaded.pixels(PICTURE)[None], normalize=True)[0]
    found = one(one.prepare(PICTURE)[None])[0]
    assert torch.allclose(found[:12] / one.width**0.5, expected, atol=2e-3)
    assert not found[12:].any()


class TestModels:
    def test_one_that_is_nowhere_is_an_error_that_says_which_folder_to_fill(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="files into the folder " + str(tmp_path / "some" / "model")):
            locate("some/model")

    @pytest.mark.parametrize(
        "name", ["", ".", "..", "/etc", "../coca", "a/../../b", "a/b/c", "a/", "a\0b", "~/m", "a\nb"]
    )
    def test_a_path_is_no_name(self, name: str, models: Path) -> None:
        with pytest.raises(ModelError, match="paths are refused"):
            locate(name)

    def test_a_folder_of_the_users_comes_before_an_embedded_one(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert locate("birds-coca").parts[-3:] == ("pretrain", "weights", "birds-coca")
        (tmp_path / "birds-coca").mkdir()
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
        assert locate("birds-coca") == tmp_path / "birds-coca"

    @pytest.mark.parametrize(("name", "options"), [case[:2] for case in ENCODERS if "model" in case[1]])
    def test_a_folder_with_something_else_is_refused(
        self, name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
        (tmp_path / options["model"]).mkdir()
        (tmp_path / options["model"] / "config.json").write_text('{"model_type": "bert"}')
        (tmp_path / options["model"] / "pytorch_model.bin").write_bytes(b"not weights")
        with pytest.raises(ModelError, match=str(tmp_path)):
            encoder(name, options).prepare(TEXT)


@pytest.fixture
def shard(models: Path, tmp_path: Path) -> Shard:
    make_shards(_experiment(), tmp_path / "shards")
    return Shard.open(tmp_path / "shards" / "client-0")


def _experiment() -> Any:
    return experiment(
        data__set={"name": "birds-mini", "train_per_class": 1, "test_per_class": 1},
        data__missing={"incomplete": 0.5},
        data__limit=30,
        data__test_limit=5,
        model__encoders={
            "image": {"name": "open-clip-image", "model": "coca"},
            "text": {"name": "open-clip-text", "model": "coca"},
        },
        method="fedavg",
    )


def _mapped_file(values: torch.Tensor) -> Path:
    """The file in whose mapping a tensor's memory lies."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(side, 16) for side in line.split()[0].split("-"))
        if start <= values.data_ptr() < end:
            return Path(line.split(maxsplit=5)[5])
    raise AssertionError("no mapping holds the tensor")


def _values(rows: Rows) -> torch.Tensor:
    source = rows._whole["image"]
    assert isinstance(source, Mapped)
    return source.values


def _encoders() -> dict[str, FrozenEncoder]:
    model = build_model(_experiment(), 48)
    return {m: model.encoder(m) for m in model.modalities}  # type: ignore[misc]


class TestCache:
    def test_features_are_computed_once(self, shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
        first = load(shard, _encoders())
        assert len(list((shard.folder / "cache").iterdir())) == 2
        monkeypatch.setattr(frozen, "_Features", lambda *_: pytest.fail("computed again"))
        second = load(shard, _encoders())
        for m in ("image", "text"):
            assert torch.equal(first.examples.inputs[m], second.examples.inputs[m])
            assert torch.equal(first.examples.origin[m], second.examples.origin[m])
            assert (first.examples.origin[m] == Origin.MISSING).any()
        one = first.examples.inputs["image"][first.examples.has("image")][0]
        record = next(record for record in shard.records if record.has("image"))
        with Image.open(record.files["image"]) as picture:
            assert torch.allclose(one.float(), _encoders()["image"].prepare(picture).float(), atol=2e-3)

    def test_features_are_mapped_and_choosing_examples_gathers_nothing(self, shard: Shard) -> None:
        for _ in range(2):  # as they are computed, and as they are found again
            examples = load(shard, _encoders()).examples
            assert isinstance(examples.inputs, Rows)
            whole = _values(examples.inputs)
            assert _mapped_file(whole).parent == shard.folder / "cache"
            part = examples.complete(["image", "text"]).observed()
            assert isinstance(part.inputs, Rows)
            assert _values(part.inputs).data_ptr() == whole.data_ptr()
            for batch in batches(part, 4):
                assert type(batch.inputs) is dict
                assert all((x != 0).flatten(1).any(1).all() for x in batch.inputs.values())

    def test_another_encoder_and_other_values_are_computed_anew(self, shard: Shard, models: Path) -> None:
        before = load(shard, _encoders())
        tiny_models.save_coca(models / "coca", seed=5)
        try:
            after = load(shard, _encoders())
        finally:
            tiny_models.save_coca(models / "coca")
        assert len(list((shard.folder / "cache").iterdir())) == 4
        assert not torch.equal(before.examples.inputs["text"], after.examples.inputs["text"])
        path = next(record for record in shard.records if record.has("image")).files["image"]
        Image.new("RGB", (64, 64), "red").save(path)
        changed = load(shard, _encoders())
        assert torch.equal(changed.examples.inputs["text"], before.examples.inputs["text"])
        assert not torch.equal(changed.examples.inputs["image"], before.examples.inputs["image"])

    def test_a_damaged_file_is_made_anew(self, shard: Shard) -> None:
        before = load(shard, _encoders())
        for path in (shard.folder / "cache").iterdir():
            path.unlink()  # cut short in place, it would be lost to `before`, which has it mapped
            path.write_bytes(b"\x00" * 30)
        after = load(shard, _encoders())
        assert torch.equal(before.examples.inputs["image"], after.examples.inputs["image"])
        assert all(load_file(path).keys() == {"index", "values"} for path in (shard.folder / "cache").iterdir())

    def test_an_unreadable_image_is_counted_also_when_it_comes_from_the_cache(self, shard: Shard) -> None:
        path = next(record for record in shard.records if record.has("image")).files["image"]
        path.write_bytes(b"no image")
        assert load(shard, _encoders()).unreadable == load(shard, _encoders()).unreadable == {"image": 1}

    def test_a_shard_that_cannot_be_written_to_works_without_a_cache(
        self, shard: Shard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*_: object) -> None:
            raise PermissionError("read-only")

        monkeypatch.setattr(os, "replace", refuse)
        assert load(shard, _encoders()).examples.modalities == ["image", "text"]
        assert "features are not kept" in caplog.text
        assert not [path for path in (shard.folder / "cache").iterdir() if path.suffix == ".partial"]


def test_weights_in_other_formats_than_safetensors_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path))
    folder = tiny_models.save_bert(tmp_path / "bert")
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        encoder("transformers-text", {"model": "bert"}).prepare(TEXT)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert encoder("transformers-text", {"model": "bert"}).prepare(TEXT) is not None
