"""docs/extend.md: every example runs, as a file of a working copy and as a plugin."""

import importlib
import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from pages import commands, files, sections
from PIL import Image
from plugin_packages import forget
from safetensors import safe_open
from safetensors.torch import save_file
from test_cli import call
from torchvision.models import squeezenet1_1

from common.config.component import build, names
from common.config.plugins import homes
from common.data.shard import Example, Media, ShardInfo, ShardWriter
from common.datasets.digits_mini import DigitsMini
from fedmosaic.testing import EncoderContract

SECTIONS = {
    name: text
    for name, text in sections((ROOT / "docs" / "extend.md").read_text()).items()
    if "pyproject.toml" in files(text)
}
SMALL = ("data.limit=48", "data.test_limit=24", "data.clients=2", "federation.rounds=1", "train.epochs=1")
FOUR = ["audio", "image", "text", "vitals"]
Add = Callable[[str, Path, pytest.MonkeyPatch], list[str]]


def sources(section: str) -> dict[Path, str]:
    """The Python files of a section by their place in a working copy."""
    return {Path(name): text for name, text in files(SECTIONS[section]).items() if name.endswith(".py")}


def add(section: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Add the section's files to a working copy: each family's package gets a second folder; the new members."""
    members = []
    for path, text in sources(section).items():
        module = str(path.parent).replace("/", ".")
        family = next(family for family, package in homes().items() if package == module)
        added = folder / family
        added.mkdir(parents=True)
        (added / path.name).write_text(text)
        before, package = names(family), importlib.import_module(module)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(added)])
        members += set(names(family)) - set(before)
    return members


def plug_in(section: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Install the section's files as a plugin with the section's entry points; the new members."""
    package = "plugin_of_" + section.replace(" ", "_").replace("-", "_").lower()
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    for path, text in sources(section).items():
        (folder / package / path.name).write_text(text)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    groups = tomllib.loads(files(SECTIONS[section])["pyproject.toml"])["project"]["entry-points"]
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{k} = {v}" for k, v in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines).replace("my_plugin", package))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr("server.report.page.plots", lambda run: [])  # the other way draws the same plots
    forget()
    return [name for entries in groups.values() for name in entries]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """No plugin of one test is found in the next."""
    yield
    forget()


BOTH_WAYS = pytest.mark.parametrize("way", [add, plug_in])


def run(section: str, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]) -> Any:
    """Run the section's command with other options besides, in a folder; its summary."""
    (command,) = commands(SECTIONS[section])
    monkeypatch.chdir(folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    sets = [word for change in changes for word in ("--set", change)]
    assert call(*command, *sets, "--run-dir", folder / "run") == 0
    return json.loads((folder / "run" / "summary.json").read_text())


@BOTH_WAYS
@pytest.mark.parametrize(
    "section", ["A method", "A strategy", "An encoder", "A pre-trained encoder", "A data set", "A model", "A metric"]
)
def test_the_example_runs(section: str, way: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    *_, member = way(section, tmp_path / "added", monkeypatch)
    summary = run(section, tmp_path, monkeypatch, SMALL)
    assert (summary["status"], summary["rounds"], summary["measured_on"]) == ("completed", 1, "test")
    assert f"name: {member}\n" in (tmp_path / "run" / "experiment.yaml").read_text()
    assert all(("jaccard" in figures) == (section == "A metric") for figures in summary["figures"].values())


@BOTH_WAYS
def test_a_tracker_follows_the_run(way: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert way("A tracker", tmp_path / "added", monkeypatch) == ["spreadsheet"]
    summary = run("A tracker", tmp_path, monkeypatch, SMALL)
    rows = (tmp_path / "run" / "figures.csv").read_text().splitlines()
    assert f"1,test/audio+image/accuracy,{summary['scores']['audio+image']}" in rows


@BOTH_WAYS
def test_what_a_completer_wrote_is_trained_on(way: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    way("A completer", tmp_path / "added", monkeypatch)
    assert run("A completer", tmp_path, monkeypatch, SMALL)["status"] == "completed"
    for client in ("client-0", "client-1"):
        (lines,) = (tmp_path / "shards" / "colours" / client / "completed").rglob("completed.jsonl")
        values = [json.loads(line)["value"] for line in lines.read_text().splitlines()]
        assert values
        assert all(value.startswith("mostly ") for value in values)


def four_modalities(folder: Path, site: str, held: list[str]) -> None:
    """A shard of digits whose vital signs tell the even ones from the odd ones, in an order of their own."""
    info = ShardInfo(site=site, classes=DigitsMini().classes, modalities=held)
    examples = []
    for number, one in enumerate(DigitsMini().examples("train", 1)[::30]):
        even = int(one.label) % 2 == 0
        media = {**one.media, "text": Media.text("even" if even else "odd")}
        media["vitals"] = Media.text(f"{36 + 3 * even},{100 + number % 40},,{80 - number % 7}")
        examples.append(Example(one.id, one.label, {m: media[m] for m in held}))
    ShardWriter(folder, info).write(examples)


@BOTH_WAYS
def test_a_fourth_modality_is_one_file(way: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert way("A modality", tmp_path / "added", monkeypatch) == ["row"]
    (tmp_path / "wards.yaml").write_text(files(SECTIONS["A modality"])["wards.yaml"])
    four_modalities(tmp_path / "shards" / "wards" / "client-0", "ward-3", FOUR)
    four_modalities(tmp_path / "shards" / "wards" / "client-1", "ward-4", ["text", "vitals"])
    summary = run("A modality", tmp_path, monkeypatch, ("federation.rounds=2", "data.validation=0.3"))
    assert summary["status"] == "completed"
    assert "vitals" in summary["scores"]
    assert "+".join(FOUR) in summary["scores"]
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as model:
        assert {name.split(".")[1] for name in model.keys() if name.startswith("branches")} == set(FOUR)  # noqa: SIM118


@pytest.mark.parametrize("section", SECTIONS)
def test_the_examples_are_those_that_a_plugin_starts_from(section: str) -> None:
    for path, text in sources(section).items():
        assert section == "A modality" or (ROOT / "deploy" / "plugin" / "members" / path.name).read_text() == text


class TestRow(EncoderContract):
    @pytest.fixture
    def options(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        add("A modality", tmp_path / "added", monkeypatch)
        return build("encoder", {"name": "row", "columns": [[37.0, 1.0], [1.0, 2.0], [70.0, 20.0]]})

    @pytest.fixture
    def value(self) -> str:
        return "37.2,,80"

    @pytest.fixture
    def taken(self) -> set[str]:
        return {"a text"}


@pytest.mark.parametrize("way", ["all", "last-2-blocks", "lora"])
class TestSqueezeNet(EncoderContract):
    @pytest.fixture
    def options(self, way: str, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        add("A pre-trained encoder", tmp_path / "added", monkeypatch)
        (models / "squeezenet").mkdir(exist_ok=True)
        save_file(squeezenet1_1(weights=None).state_dict(), models / "squeezenet" / "model.safetensors")
        return build("encoder", {"name": "squeezenet", "pretrained": "squeezenet", "size": 32, "train": way})

    @pytest.fixture
    def value(self) -> Image.Image:
        return Image.linear_gradient("L").convert("RGB")

    def test_the_weights_are_those_of_the_folder_and_adapters_merge(self, options: Any, value: Any, way: str) -> None:
        encoder, frozen = options.build().eval(), options.model_copy(update={"train": "frozen"}).build()
        assert encoder.base == frozen.base
        found = encoder(encoder.prepare(value)[None])
        assert torch.allclose(found, frozen(frozen.prepare(value)[None]), atol=5e-3)
        if way == "lora":
            assert torch.allclose(encoder.merge().eval()(encoder.prepare(value)[None]), found, atol=1e-5)
