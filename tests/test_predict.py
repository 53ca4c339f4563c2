"""A trained model in use: predictions from Python and from the command line, exported folders, TensorBoard's files."""

import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from glob import glob
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import RAW, ROOT, experiment
from PIL import Image
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_cli import call
from test_compare import write_run

from common.build import build_model
from common.config.task import SingleLabel
from common.data.shard import Shard
from common.encoders.image import pixels_of
from common.errors import DataError, ModelError
from common.media.values import Sound, read
from common.modality import subset_name, subsets
from common.tasks.find import task_of
from common.trained.predictor import Predictor, load_model
from common.types import Batch, Origin
from server.record.run_folder import RunFolder

EMBEDDED = ROOT / "deploy" / "pretrain" / "weights"
FROZEN = {
    "image": {"name": "open-clip-image", "model": "birds-coca", "grid": 2},
    "text": {"name": "open-clip-text", "model": "birds-coca"},
}
WITHOUT_SIDES = """
import json, sys
for name in ("server", "client", "deploy", "flwr"):
    sys.modules[name] = None    # importing it raises ImportError
import fedmosaic
print(json.dumps(fedmosaic.load_model(sys.argv[1]).predict([{sys.argv[2]: sys.argv[3]}])[0].probabilities))
"""


@pytest.fixture(scope="module")
def run(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny experiment."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(RAW))
    where = ["--shards", tiny_shards, "--run-dir", folder / "run"]
    assert call("run", folder / "tiny.yaml", "--engine", "inprocess", *where) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "models" / "tiny"
    assert call("export", run, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def test_shard(tiny_shards: Path) -> Shard:
    return Shard.open(tiny_shards / "test")


@pytest.fixture(scope="module")
def frozen_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder with a model of frozen encoders, as RunFolder leaves it; the model was not trained."""
    folder = tmp_path_factory.mktemp("frozen") / "run"
    chosen = experiment(data={"clients": 2}, model={"encoders": FROZEN}, method="fedavg", name="birds")
    record = RunFolder(folder, chosen)
    model = build_model(chosen, 3)
    record.model(dict(model.state_dict()), chosen, ("robin", "owl", "gull"))
    return folder


def files(shard: Shard, index: int = 0) -> dict[str, Path]:
    return dict(shard.records[index].files)


def test_predictions_on_the_test_shard_have_the_accuracy_of_the_summary(run: Path, test_shard: Shard) -> None:
    model = load_model(run)
    accuracy = json.loads((run / "summary.json").read_text())["scores"]
    assert set(accuracy) == {"audio", "image", "audio+image"}
    for subset in subsets(model.modalities):
        predictions = model.predict([{m: record.files[m] for m in subset} for record in test_shard.records])
        hits = [made.label == record.label for made, record in zip(predictions, test_shard.records, strict=True)]
        assert sum(hits) / len(hits) == pytest.approx(accuracy[subset_name(subset)], abs=1e-12)
        assert {made.modalities for made in predictions} == {subset}


def test_a_prediction_is_the_softmax_of_the_models_logits(run: Path, test_shard: Shard) -> None:
    """The model is built and its tensors are put in here in another way."""
    resolved = experiment()
    model = build_model(resolved, 10)
    model.load_state_dict(load_file(run / "model.safetensors"))
    picture = Image.open(files(test_shard)["image"])
    batch = Batch(
        {"image": pixels_of(picture, 8, 1).unsqueeze(0)},
        {"image": torch.tensor([Origin.OBSERVED])},
        torch.tensor([0]),
    )
    with torch.no_grad():
        expected = model.eval().predict(batch)[0].double().softmax(0)
    (made,) = load_model(run).predict([{"image": picture}])
    assert list(made.probabilities) == [str(digit) for digit in range(10)]
    assert list(made.probabilities.values()) == pytest.approx(expected.tolist(), abs=1e-6)
    assert made.label == str(int(expected.argmax()))


def test_examples_of_different_modalities_do_not_influence_each_other(run: Path, test_shard: Shard) -> None:
    model, one, other = load_model(run), files(test_shard), files(test_shard, 5)
    wanted = [{"image": one["image"]}, other, {"audio": one["audio"]}]
    together = model.predict(wanted)
    assert [made.modalities for made in together] == [("image",), ("audio", "image"), ("audio",)]
    for made, example in zip(together, wanted, strict=True):
        (alone,) = model.predict([example])
        assert list(made.probabilities.values()) == pytest.approx(list(alone.probabilities.values()), abs=1e-6)


def test_names_paths_pictures_and_sounds_give_the_same(run: Path, test_shard: Shard) -> None:
    model, paths = load_model(run), files(test_shard)
    sound, picture = read(paths["audio"]), read(paths["image"])
    assert isinstance(sound, Sound)
    as_content = {"audio": Sound(sound.samples, sound.rate), "image": picture}
    first, *others = model.predict([paths, {m: str(path) for m, path in paths.items()}, as_content])
    for other in others:
        assert dict(other.probabilities) == pytest.approx(dict(first.probabilities), abs=1e-6)


def test_many_examples_are_predicted_in_parts(run: Path, test_shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [files(test_shard, index) for index in range(7)]
    whole = load_model(run).predict(examples)
    monkeypatch.setattr("common.trained.predictor.CHUNK", 3)
    parts = load_model(run).predict(examples)
    assert [made.label for made in parts] == [made.label for made in whole]
    assert len(parts) == 7
    assert load_model(run).predict([]) == []


@pytest.mark.parametrize(
    ("example", "expected"),
    [
        ({"image": "nowhere.png"}, "example 2, image: nowhere.png: .*No such file"),
        ({"image": "README.md"}, "example 2, image: README.md: files ending in .md"),
        ({"image": np.zeros((8, 8), np.float32)}, "example 2, image: an image is needed, not ndarray"),
        ({"text": "a seven"}, "example 2: the model has no encoder for 'text'; it has audio, image"),
        ({}, "example 2: a mapping of one or more"),
        ("7.png", "example 2: a mapping of one or more"),
    ],
)
def test_what_cannot_be_predicted_is_named(run: Path, test_shard: Shard, example: object, expected: str) -> None:
    with pytest.raises(DataError, match=expected):
        load_model(run).predict([files(test_shard), example])  # type: ignore[list-item]


def test_a_broken_file_is_named(run: Path, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(DataError, match=r"example 1, image: torn\.png: "):
        load_model(run).predict([{"image": tmp_path / "torn.png"}])


def test_an_exported_folder_predicts_the_same_without_server_client_deploy_and_flower(
    run: Path, exported: Path, test_shard: Shard, tmp_path: Path
) -> None:
    assert {path.name for path in exported.iterdir()} == {"model.safetensors", "config.json", "README.md"}
    picture = files(test_shard)["image"]
    call_alone = [sys.executable, "-W", "error", "-c", WITHOUT_SIDES, str(exported), "image", str(picture)]
    done = subprocess.run(call_alone, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    (expected,) = load_model(run).predict([{"image": picture}])
    assert json.loads(done.stdout) == pytest.approx(dict(expected.probabilities), abs=1e-6)


def test_the_config_says_what_the_model_is_and_not_where_the_data_were(exported: Path) -> None:
    config = json.loads((exported / "config.json").read_text())
    assert config["classes"] == [str(digit) for digit in range(10)]
    assert config["model"]["architecture"]["name"] == "two-projector"
    assert set(config) == {"model", "task", "classes", "frozen", "best"}


def test_the_model_card_says_what_a_reader_must_know(run: Path, exported: Path) -> None:
    card = (exported / "README.md").read_text()
    accuracy = json.loads((run / "summary.json").read_text())["scores"]
    for name, value in accuracy.items():
        assert f"| {name} | {value:.1%} |" in card
    for expected in (
        "`fedcmi`", "digits-mini", "CC BY 4.0", "| seed | 3 |", "| rounds | 2 |", "| sites | 2 |", "server's test",
        "Classes: 0, 1, 2",
    ):  # fmt: skip
        assert expected in card
    assert "The run is" not in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "fedmosaic"


def test_the_card_of_an_unfinished_run_says_so_and_names_no_source_folder(run: Path, tmp_path: Path) -> None:
    partial = tmp_path / "partial"
    shutil.copytree(run, partial)
    (partial / "summary.json").unlink()
    described = yaml.safe_load((run / "experiment.yaml").read_text())
    described["data"]["set"] = {"name": "av-digits", "mnist": "/secret/mnist", "fsdd": "/secret/fsdd"}
    (partial / "experiment.yaml").write_text(yaml.safe_dump(described))
    assert call("export", partial, "--out", tmp_path / "out") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The run is unfinished" in card
    assert "av-digits" in card
    assert "/secret" not in card + (tmp_path / "out" / "config.json").read_text()


def test_frozen_encoders_predict_as_the_model_in_training_would(frozen_run: Path, tmp_path: Path) -> None:
    """Features are made here by the encoder itself, as `common.data.prepared.frozen` makes a shard's."""
    model = load_model(frozen_run)
    picture = Image.new("RGB", (40, 30), (200, 30, 30))
    picture.save(tmp_path / "bird.png")
    original = build_model(experiment(data={"clients": 2}, model={"encoders": FROZEN}, method="fedavg"), 3).eval()
    raw = {"image": picture, "text": "a small red bird"}
    batch = Batch(
        {m: original.encoder(m).prepare(value).unsqueeze(0) for m, value in raw.items()},
        {m: torch.tensor([Origin.OBSERVED]) for m in raw},
        torch.tensor([0]),
    )
    with torch.no_grad():
        expected = original.predict(batch)[0].softmax(0).tolist()
    (made,) = model.predict([{"image": tmp_path / "bird.png", "text": "a small red bird"}])
    assert list(made.probabilities.values()) == pytest.approx(expected, abs=1e-6)
    assert made.modalities == ("image", "text")


def test_an_export_refuses_frozen_encoders_with_other_weights(
    frozen_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call("export", frozen_run, "--out", tmp_path / "out") == 0
    assert "open-clip-image grid 2" in (tmp_path / "out" / "README.md").read_text()
    shutil.copytree(EMBEDDED / "birds-coca", tmp_path / "models" / "birds-coca")
    monkeypatch.setenv("FEDMOSAIC_MODELS", str(tmp_path / "models"))
    load_model(tmp_path / "out")
    weights = tmp_path / "models" / "birds-coca" / "open_clip_model.safetensors"
    tensors = load_file(weights)
    save_file({name: value + 1 if value.is_floating_point() else value for name, value in tensors.items()}, weights)
    with pytest.raises(ModelError, match="pre-trained encoder of image, text has other weights"):
        load_model(tmp_path / "out")


def damage_nothing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damage_bytes(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"torn")


def damage_tensors(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(next(iter(tensors)))
    save_file(tensors, folder / "model.safetensors")


def damage_encoder(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["encoders"]["image"]["name"] = "hologram"
    (folder / "config.json").write_text(json.dumps(config))


def damage_option(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model"]["encoders"]["image"]["colour"] = "red"
    (folder / "config.json").write_text(json.dumps(config))


def damage_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model": {}}')


def damage_all_of_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (damage_nothing, "there is no .*model.safetensors"),
        (damage_bytes, "cannot be read"),
        (damage_tensors, "the file's tensors do not match the model"),
        (damage_encoder, "cannot build the model: .*unknown encoder 'hologram'"),
        (damage_option, "cannot build the model: colour: "),
        (damage_config, "the description of the model cannot be read: model.encoders: "),
        (damage_all_of_config, "has no description of its model: 'experiment' is absent"),
    ],
)
def test_a_folder_that_is_no_model_is_refused_with_the_reason(
    exported: Path, tmp_path: Path, damage: Callable[[Path], None], expected: str
) -> None:
    shutil.copytree(exported, tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(ModelError, match=expected):
        load_model(tmp_path / "model")


def test_predict_tells_modalities_by_the_kind_of_file(
    exported: Path, test_shard: Shard, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files(test_shard)
    (expected,) = load_model(exported).predict([paths])
    for given in ([paths["audio"], paths["image"]], [f"image={paths['image']}", f"audio={paths['audio']}"]):
        assert call("predict", exported, "--input", *given, "--json") == 0
        (line,) = capsys.readouterr().out.splitlines()
        made = json.loads(line)
        assert (made["prediction"], made["modalities"]) == (expected.label, ["audio", "image"])
        assert made["probabilities"] == pytest.approx(dict(expected.probabilities))
    assert call("predict", exported, "--input", paths["image"]) == 0
    shown = capsys.readouterr().out
    assert "(from image)" in shown
    assert shown.count("%") == 5


def test_predict_takes_texts_and_text_files(
    frozen_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "caption.txt").write_text("a small red bird")
    made = []
    for given in ("text=a small red bird", tmp_path / "caption.txt", f"text={tmp_path / 'caption.txt'}"):
        assert call("predict", frozen_run, "--input", given, "--json") == 0
        made.append(json.loads(capsys.readouterr().out))
    assert made[0]["modalities"] == ["text"]
    assert made[1:] == made[:1] * 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--input", "7.png"], "there is no file '7.png'; write a text as MODALITY=TEXT"),
        (["--input", "vidoe=7.png"], "the model has no encoder for 'vidoe'; it has audio, image"),
        (["--input", "notes.txt"], "--input notes.txt: no encoder accepts it: audio: a recording is needed"),
        (["--input", "notes.md"], "--input notes.md: files ending in .md are not supported"),
        (["--input", "dot.png", "image=dot.png"], "--input: image has two values"),
        (["--input", "dot.png", "--modalities", "image"], "--modalities needs --shard"),
        (["--shard", "nowhere"], "shard nowhere: there is no such folder"),
        ([], "one of the arguments --input --shard --folder is required"),
    ],
)
def test_a_mistake_in_what_to_predict_is_one_message_and_status_2(
    exported: Path, arguments: list[str], expected: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for name in ("notes.txt", "notes.md"):
        (tmp_path / name).write_text("a seven")
    Image.new("L", (8, 8)).save(tmp_path / "dot.png")
    assert call("predict", exported, *arguments) == 2
    errors = capsys.readouterr().err
    assert expected in errors
    assert "Traceback" not in errors


def test_a_file_that_two_encoders_take_needs_a_name(tmp_path: Path) -> None:
    image = {"name": "image", "size": 8, "width": 8}
    chosen = experiment(data={"clients": 2}, model={"encoders": {"front": image, "rear": image}}, method="fedavg")
    predictor = Predictor(build_model(chosen, 2), task_of(SingleLabel(), ("yes", "no")))
    with pytest.raises(DataError, match=r"it may be front or rear: name the modality, e.g. front=FILE"):
        predictor.modality_of(Image.new("L", (8, 8)))


def test_predict_goes_through_a_shard(
    run: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accuracy = json.loads((run / "summary.json").read_text())["scores"]
    shard = tiny_shards / "test"
    for name in accuracy:
        assert call("predict", run, "--shard", shard, "--modalities", *name.split("+"), "--json") == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["id"] for line in lines] == [record.id for record in Shard.open(shard).records]
        hits = sum(line["label"] == line["prediction"] for line in lines)
        assert math.isclose(hits / len(lines), accuracy[name])
    broken = tmp_path / "broken"
    shutil.copytree(shard, broken)
    first, second = Shard.open(broken).records[:2]
    first.files["audio"].write_bytes(b"torn")
    for path in second.files.values():
        path.unlink()
    assert call("predict", run, "--shard", broken) == 0
    said = capsys.readouterr()
    assert "of 39 correct" in said.out
    assert "2 unreadable audio values" in said.err
    assert "1 examples have no usable value" in said.err


def test_labels_that_the_model_does_not_know_are_not_counted(
    run: Path, tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(tiny_shards / "test", tmp_path / "test")
    info = json.loads((tmp_path / "test" / "shard.json").read_text())
    (tmp_path / "test" / "shard.json").write_text(json.dumps({**info, "classes": [*info["classes"], "?"]}))
    lines = [json.loads(line) for line in (tmp_path / "test" / "metadata.jsonl").read_text().splitlines()]
    lines[0]["label"] = lines[1]["label"] = "?"
    (tmp_path / "test" / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("predict", run, "--shard", tmp_path / "test") == 0
    assert f"of {len(lines) - 2} correct; 2 more have labels" in capsys.readouterr().out


def test_export_never_overwrites(run: Path, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("export", run, "--out", exported) == 2
    assert "exists" in capsys.readouterr().err


@pytest.fixture
def as_documented(run: Path, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory that docs/how-to/predict.md speaks of."""
    shutil.copytree(run, tmp_path / "runs" / "demo")
    shutil.copytree(tiny_shards / "test", tmp_path / "shards" / "demo" / "test")
    for path in Shard.open(tiny_shards / "test").records[0].files.values():
        shutil.copy(path, tmp_path / f"7{path.suffix}")
        new = tmp_path / "new" / ("pictures" if path.suffix == ".png" else "sounds")
        new.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, new / f"1{path.suffix}")
    for method in ("fedavg", "fedcmi"):
        for seed in (1, 2, 3):
            write_run(tmp_path / "runs" / f"{method}-{seed}", 0.8, seed, method=method)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def documented(language: str) -> list[str]:
    """The blocks of docs/how-to/predict.md and docs/how-to/compare-methods.md in a language."""
    pages = "".join((ROOT / "docs" / "how-to" / name).read_text() for name in ("predict.md", "compare-methods.md"))
    return re.findall(rf"^```{language}\n(.*?)^```", pages, re.DOTALL | re.MULTILINE)


def test_the_documented_commands_do_what_is_said(as_documented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line for block in documented("sh") for line in block.splitlines()
             if line.startswith("fedmosaic ") and not line.startswith("fedmosaic bench ")]  # fmt: skip
    commands = [shlex.split(line)[1:] for line in lines]
    assert {command[0] for command in commands} == {"predict", "export", "compare", "tensorboard"}
    for command in commands:
        words = [name for word in command for name in (sorted(glob(word)) if "*" in word else [word])]
        assert call(*words) == 0, command
    assert {path.name for path in as_documented.iterdir()} >= {"models", "comparison.html", "events"}


def test_the_documented_python_runs(as_documented: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = documented("python")
    exec(compile(block, "docs/how-to/predict.md", "exec"), {})
    assert capsys.readouterr().out.endswith("('image',)\n")


def test_event_files_hold_the_figures_of_every_round(run: Path, tmp_path: Path) -> None:
    assert call("tensorboard", run, "--out", tmp_path / "events") == 0
    events = EventAccumulator(str(tmp_path / "events" / "run"))
    events.Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = events.Scalars("test/audio+image/accuracy")
    assert [event.step for event in found] == [0, 1, 2]
    assert [event.value for event in found] == pytest.approx(
        [line["test"]["audio+image"]["accuracy"] for line in lines]
    )
    (last,) = [event for event in events.Scalars("clients/client-1/num_examples") if event.step == 2]
    assert last.value == lines[2]["clients"]["client-1"]["num_examples"]
    apart = found[2].wall_time - found[0].wall_time
    assert apart == pytest.approx(lines[1]["seconds"]["total"] + lines[2]["seconds"]["total"], abs=1e-3)


def test_event_files_need_the_package_and_a_new_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events" / "run").mkdir(parents=True)
    assert call("tensorboard", run, tmp_path / "nowhere", "--out", tmp_path / "events") == 2
    errors = capsys.readouterr().err
    assert "nowhere has no metrics.jsonl" in errors
    assert "run exists" in errors
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert call("tensorboard", run, "--out", tmp_path / "others") == 2
    assert "pip install 'fedmosaic[tensorboard]'" in capsys.readouterr().err
