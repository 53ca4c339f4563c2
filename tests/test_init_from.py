"""A run that starts from a given model: `fedmosaic run --init`."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from conftest import RAW, experiment
from safetensors.torch import load_file, save_file
from test_checkpoint import Crash, CrashingGrid, go, metrics
from test_cli import call

import fedmosaic
from client.site import Site
from common.blocks import get_params
from common.build import build_model
from common.errors import ConfigError, ModelError
from deploy.engines.in_process import InProcessGrid
from server.record.run_folder import RunFolder
from server.rounds.federation import Federation
from server.rounds.starting import GivenModel, given_model, started_in_words

DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def trained(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one round."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    go(experiment(federation__rounds=1, federation__keep={"best": "accuracy on test"}, seed=8), tiny_shards, folder)
    return folder


def initial(**changes: object) -> dict[str, torch.Tensor]:
    return get_params(build_model(experiment(**changes), 10))


class TestTensors:
    def test_all_tensors_of_the_same_model_are_loaded(self, trained: Path) -> None:
        given = GivenModel.read(trained / "model.safetensors")
        params, started = given.into(initial(), experiment(), DIGITS)
        assert params.keys() == given.params.keys()
        assert all(torch.equal(params[name], value) for name, value in given.params.items())
        assert (started["initial"], started["unused"], started["notes"]) == ({}, {}, [])
        assert sum(started["loaded"].values()) == len(params)
        assert len(list(started_in_words(started))) == 1

    def test_other_names_and_shapes_are_named_by_block(self, trained: Path) -> None:
        encoders = {"audio": RAW["model"]["encoders"]["audio"], "image": {"name": "image", "size": 8, "filters": 8}}
        chosen = experiment(model={"encoders": encoders})
        before = initial(model={"encoders": encoders})
        given = GivenModel.read(trained / "model.safetensors")
        params, started = given.into(before, chosen, DIGITS)
        kept = {name for names in started["initial"].values() for name in names}
        assert kept and all(name.startswith("branches.image.encoder.") or "image" in name or "fusion" in name
                            for name in kept)  # fmt: skip
        for name, value in params.items():
            assert torch.equal(value, before[name] if name in kept else given.params[name])
        words = list(started_in_words(started))
        assert words[1].startswith("not in the file, so with their initial values: image ")
        assert max(map(len, words)) < 600

    def test_a_modality_more_and_one_less(self, trained: Path) -> None:
        encoders = {"audio": RAW["model"]["encoders"]["audio"], "text": {"name": "text", "width": 8}}
        changes = {"model": {"encoders": encoders}, "data": {"clients": 2}}
        _, started = GivenModel.read(trained).into(initial(**changes), experiment(**changes), DIGITS)
        assert "text" in started["initial"] and "image" in started["unused"] and "audio" in started["loaded"]
        words = " ".join(started_in_words(started))
        assert "in the file, but not used: image" in words and "initial values: " in words

    def test_other_classes_are_named(self, trained: Path) -> None:
        _, started = GivenModel.read(trained).into(initial(), experiment(), tuple("abcdefghij"))
        assert started["notes"] == ["the model in the file has other classes: 0, 1, 2, 3, 4 and 5 more"]

    def test_nothing_that_fits_is_an_error(self, trained: Path) -> None:
        changes = {"model": {"encoders": {"text": {"name": "text", "width": 5}}}, "data": {"clients": 2}}
        params = get_params(build_model(experiment(**changes, method="fedavg"), 7))
        with pytest.raises(ModelError, match=r"--init: no tensor of .* fits the model of this experiment"):
            GivenModel.read(trained).into(params, experiment(**changes), DIGITS[:7])


class TestPretrained:
    def test_the_trained_part_of_other_pretrained_weights_is_left_out_and_named(
        self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoders = {
            "image": {"name": "timm", "pretrained": "timm", "train": "lora"},
            "audio": RAW["model"]["encoders"]["audio"],
        }
        changes = {"model": {"encoders": encoders}, "method": "fedavg"}
        chosen, params = experiment(**changes), initial(**changes)
        RunFolder(tmp_path / "run", chosen).model(params, chosen, DIGITS)
        _, started = GivenModel.read(tmp_path / "run").into(params, chosen, DIGITS)
        assert started["loaded"]["image"] > 0 and not started["notes"]
        shutil.copytree(models / "timm", tmp_path / "models" / "timm")
        config = tmp_path / "models" / "timm" / "config.json"
        config.write_text(config.read_text().replace("bilinear", "bicubic"))
        monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path / "models"))
        fresh = {name: value + 1 for name, value in params.items()}
        found, started = GivenModel.read(tmp_path / "run").into(fresh, chosen, DIGITS)
        assert "image" not in started["loaded"] and started["loaded"]["audio"] > 0
        assert all(torch.equal(found[name], fresh[name]) for name in started["initial"]["image"])
        (note,) = started["notes"]
        assert note.startswith("image is not loaded, because its pre-trained weights differ: ")


class Malicious:
    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return exit, (7,)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:500])


def endless(file: Path) -> None:
    save_file({"w": torch.tensor([float("nan")])}, file)


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (cut, "cannot be read"),
    (lambda file: file.write_bytes(b"a text"), "cannot be read"),
    (lambda file: file.write_bytes(pickle.dumps(Malicious())), "contains pickles"),
    (lambda file: torch.save({"w": torch.ones(1)}, file), "contains pickles"),
    (lambda file: save_file({"w": torch.ones(1)}, file), "has no description of its model"),
    (endless, "not finite"),
    (Path.unlink, "is not the folder of a run with a model, and not a model's file"),
]


@pytest.mark.parametrize(("break_it", "words"), BROKEN, ids=lambda value: value if isinstance(value, str) else "file")
def test_other_files_and_damaged_files(
    break_it: Callable[[Path], object], words: str, trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "model.safetensors"
    shutil.copy(trained / "model.safetensors", file)
    break_it(file)
    with pytest.raises(ModelError, match=words):
        GivenModel.read(file)
    with pytest.raises(ModelError):
        GivenModel.read(tmp_path)


def test_a_checkpoint_is_no_model(trained: Path) -> None:
    with pytest.raises(ModelError, match="is a checkpoint: name the folder of its run"):
        GivenModel.read(next((trained / "checkpoints").iterdir()))


def begun(folder: Path, init: Path | None, shards: Path, crash_in: int = 0, resume: bool = False) -> Federation:
    chosen = experiment()
    run = RunFolder(folder, chosen, resume)
    given = given_model(init, run)
    federation = Federation(chosen, CrashingGrid(shards, crash_in), shards / "test", run, given=given)
    federation.run()
    return federation


@pytest.mark.parametrize("crash_in", [1, 2])
def test_a_resumed_run_keeps_the_model_that_it_began_with(
    crash_in: int, trained: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    whole = begun(tmp_path / "whole", trained, tiny_shards).summary()
    with pytest.raises(Crash):
        begun(tmp_path / "broken", trained, tiny_shards, crash_in)
    again = begun(tmp_path / "broken", None, tiny_shards, resume=True).summary()
    assert again["started_from"] == whole["started_from"] is not None
    assert again["started_from"]["file"] == str(trained / "best.safetensors")
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "broken")


def test_a_file_that_changes_before_the_first_checkpoint_is_an_error(
    trained: Path, tiny_shards: Path, tmp_path: Path
) -> None:
    shutil.copy(trained / "model.safetensors", file := tmp_path / "given.safetensors")
    with pytest.raises(Crash):
        begun(tmp_path / "run", file, tiny_shards, crash_in=1)
    shutil.copy(trained / "best.safetensors", file)
    with pytest.raises(ConfigError, match="has changed since the run began: start a new run"):
        begun(tmp_path / "run", None, tiny_shards, resume=True)


def test_the_first_round_evaluates_the_given_model(trained: Path, tiny_shards: Path, tmp_path: Path) -> None:
    begun(tmp_path / "run", trained / "model.safetensors", tiny_shards)
    assert metrics(tmp_path / "run")[0]["test"] == metrics(trained)[1]["test"]


def test_clients_train_the_given_model(trained: Path, tiny_shards: Path, tmp_path: Path) -> None:
    """Round 1 of a run from the model of round 1 with lr near 0 ends with this model."""
    chosen = experiment(federation__rounds=1, train__lr=1e-30, train__weight_decay=0.0)
    run = RunFolder(tmp_path / "run", chosen)
    sites = [Site(tiny_shards / f"client-{index}") for index in range(2)]
    given = GivenModel.read(trained / "model.safetensors")
    Federation(chosen, InProcessGrid(sites), None, run, given=given).run()
    found = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.allclose(value, given.params[name], atol=1e-6) for name, value in found.items()
               if "running" not in name)  # fmt: skip


def test_command_and_python(
    trained: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**RAW, "federation": {"rounds": 1}}))
    asked = ["run", tmp_path / "tiny.yaml", "--engine", "inprocess", "--shards", tiny_shards, "--run-dir"]
    assert call(*asked, tmp_path / "run", "--init", trained) == 0
    sentence = f"started from {trained / 'best.safetensors'}: "
    shown = capsys.readouterr().out
    assert sentence in shown and "tensors are loaded (audio" in shown
    assert sentence in (tmp_path / "run" / "logs" / "run.log").read_text()
    started = json.loads((tmp_path / "run" / "summary.json").read_text())["started_from"]
    assert started["file"] == str(trained / "best.safetensors")
    run = fedmosaic.run(tmp_path / "tiny.yaml", shards=tiny_shards, run_dir=tmp_path / "python", init=trained)
    assert run.summary["started_from"] == started
    assert call(*asked, tmp_path / "none", "--init", tmp_path / "absent") == 2
    assert "there is no" in capsys.readouterr().err
    assert call(*asked, tmp_path / "run", "--resume", "--init", trained) == 2
    assert "leave --init out" in capsys.readouterr().err
