"""`fedmosaic init`: what it writes runs, and explains every option."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from test_cli import call

from common.config.component import find
from common.config.experiment import Data, Experiment, Federation, Missing, Model, Train, Wire
from common.config.reading import read
from common.data.shard import Shard
from deploy.commands.init import STARTING

SECTIONS: dict[str, type[BaseModel]] = {
    "data": Data,
    "data.missing": Missing,
    "model": Model,
    "train": Train,
    "federation": Federation,
    "wire": Wire,
}


def test_the_starting_experiment_has_every_option() -> None:
    raw = yaml.safe_load(STARTING.read_text())
    assert raw.keys() == Experiment.model_fields.keys()
    for dotted, section in SECTIONS.items():
        written: Any = raw
        for key in dotted.split("."):
            written = written[key]
        assert written.keys() == section.model_fields.keys(), dotted
    for family, component in [("method", raw["method"]), *(("encoder", e) for e in raw["model"]["encoders"].values())]:
        assert component.keys() == {"name", *find(family, component["name"]).model_fields}


def test_every_line_of_it_has_a_comment_of_one_line() -> None:
    lines = [line for line in STARTING.read_text().splitlines() if line.strip() and not line.startswith("#")]
    sections = {"data:", "model:", "federation:"}
    assert [line for line in lines if "# " not in line and line not in sections] == []
    assert max(map(len, lines)) <= 120


def test_what_it_says_is_a_default_is_one() -> None:
    experiment = read(STARTING)
    assert experiment.model.architecture is not None
    assert experiment.strategy == {"name": "fedavg"}
    changed = {"epochs", "lr", "rounds", "clients"}
    for written, section in ((experiment.train, Train), (experiment.federation, Federation), (experiment.data, Data)):
        for name, field in section.model_fields.items():
            assert name in changed or getattr(written, name) == field.get_default(call_default_factory=True), name


def test_null_stands_for_what_the_method_wants() -> None:
    experiment = read(STARTING, {"method": "fedcmi"})
    wanted = find("method", "fedcmi")
    assert (experiment.model.architecture or {})["name"] == wanted.model == "two-projector"
    assert (experiment.strategy or {})["name"] == wanted.strategy == "fedcmi"


def test_the_experiment_runs_on_the_example_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "new") == 0
    said = capsys.readouterr().out
    command = next(line for line in said.splitlines() if "--shards new/example" in line).split()
    assert command[:2] == ["fedmosaic", "run"]
    options = [word if word != "processes" else "inprocess" for word in command[1:]]
    assert call(*options, "--set", "federation.rounds=2") == 0
    summary = json.loads((tmp_path / "runs" / "my-experiment" / "summary.json").read_text())
    assert {site: facts["modalities"] for site, facts in summary["sites"].items()} == {
        "north": ["audio", "image", "text"],
        "south": ["audio", "image", "text"],
        "east": ["image", "text"],
    }
    assert summary["measured_on"] == "test"
    assert len(summary["scores"]) == 7


def test_the_example_shards_have_three_modalities_and_miss_some(tmp_path: Path) -> None:
    assert call("init", tmp_path / "new") == 0
    shards = {path.name: Shard.open(path) for path in (tmp_path / "new" / "example").iterdir()}
    assert sorted(shards) == ["client-0", "client-1", "client-2", "test"]
    texts = {name: sum(record.has("text") for record in shard.records) for name, shard in shards.items()}
    assert texts == {"client-0": 45, "client-1": 45, "client-2": 45, "test": 60}
    assert not any(record.has("audio") for record in shards["client-2"].records)
    images = [record.files["image"].read_bytes() for shard in shards.values() for record in shard.records]
    assert len(images) == len(set(images)) == 240
    assert {shard.info.licence for shard in shards.values()} == {
        "images CC BY 4.0 (UCI); clips Apache-2.0; words Apache-2.0"
    }


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").write_text("mine")
    assert call("init", tmp_path / "new") == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert call("init", tmp_path / "new" / "mine") == 2
    assert call("init", tmp_path / "new" / "mine" / "below") == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "mine"]
    (tmp_path / "new" / "mine").unlink()
    assert call("init", tmp_path / "new") == 0
