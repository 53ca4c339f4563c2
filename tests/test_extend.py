"""docs/extend.md: every example is one file, added to its family, and its command runs to the end."""

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_methods
import test_models
import test_strategies
from conftest import ROOT
from pages import commands, files, sections
from safetensors import safe_open
from test_cli import call

from common.config.component import FAMILIES, names
from common.data.shard import Example, Media, ShardInfo, ShardWriter
from common.datasets.digits_mini import DigitsMini

SECTIONS = {name: text for name, text in sections((ROOT / "docs" / "extend.md").read_text()).items() if files(text)}
SMALL = ("data.limit=48", "data.test_limit=24", "data.clients=2", "federation.rounds=1", "train.epochs=1")
FOUR = ["audio", "image", "text", "vitals"]


def add(section: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Give the family's package a second folder with the section's file and nothing else; the family and the member."""
    (name,) = [name for name in files(SECTIONS[section]) if name.endswith(".py")]
    module = str(Path(name).parent).replace("/", ".")
    family = next(family for family, package in FAMILIES.items() if package == module)
    folder.mkdir()
    (folder / Path(name).name).write_text(files(SECTIONS[section])[name])
    before, package = names(family), importlib.import_module(module)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    (member,) = set(names(family)) - set(before)
    return family, member


def run(section: str, folder: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[str, ...]) -> Any:
    """Run the section's command with other options besides, in a folder; its summary."""
    (command,) = commands(SECTIONS[section])
    monkeypatch.chdir(folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    sets = [word for change in changes for word in ("--set", change)]
    assert call(*command, *sets, "--run-dir", folder / "run") == 0
    return json.loads((folder / "run" / "summary.json").read_text())


@pytest.mark.parametrize("section", ["A method", "A strategy", "An encoder", "A data set"])
def test_one_file_is_enough(section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, member = add(section, tmp_path / "added", monkeypatch)
    summary = run(section, tmp_path, monkeypatch, SMALL)
    assert (summary["status"], summary["rounds"], summary["accuracy_on"]) == ("completed", 1, "test")
    assert f"name: {member}\n" in (tmp_path / "run" / "experiment.yaml").read_text()


def test_a_completer_is_one_file_and_what_it_wrote_is_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("A completer", tmp_path / "added", monkeypatch)
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


def test_a_fourth_modality_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert add("A modality", tmp_path / "added", monkeypatch) == ("encoder", "row")
    (tmp_path / "wards.yaml").write_text(files(SECTIONS["A modality"])["wards.yaml"])
    four_modalities(tmp_path / "shards" / "wards" / "client-0", "ward-3", FOUR)
    four_modalities(tmp_path / "shards" / "wards" / "client-1", "ward-4", ["text", "vitals"])
    summary = run("A modality", tmp_path, monkeypatch, ("federation.rounds=2", "data.validation=0.3"))
    assert summary["status"] == "completed"
    assert "vitals" in summary["accuracy"]
    assert "+".join(FOUR) in summary["accuracy"]
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as model:
        assert {name.split(".")[1] for name in model.keys() if name.startswith("branches")} == set(FOUR)  # noqa: SIM118


def contract(suite: type, *arguments: str) -> list[Callable[..., None]]:
    """The tests of a suite that every member of a family passes, of those arguments."""
    found = [check for name, check in inspect.getmembers(suite, inspect.isfunction) if name.startswith("test_")]
    return [check for check in found if list(inspect.signature(check).parameters) == ["self", *arguments]]


@pytest.mark.parametrize("count", test_methods.SHAPES)
@pytest.mark.parametrize("check", contract(test_methods.TestContract, "name", "count"))
def test_the_method_keeps_the_contract(
    check: Callable[..., None], count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, member = add("A method", tmp_path / "added", monkeypatch)
    check(test_methods.TestContract(), member, count)


@pytest.mark.parametrize("check", contract(test_strategies.TestContract, "name"))
def test_the_strategy_keeps_the_contract(
    check: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, member = add("A strategy", tmp_path / "added", monkeypatch)
    check(test_strategies.TestContract(), member)


@pytest.mark.parametrize("check", contract(test_models.TestEncoders, "name", "options"))
@pytest.mark.parametrize(
    ("section", "alike", "value", "options"),
    [
        ("An encoder", "spectrogram", test_models.RAWS["spectrogram"], {"bands": 20}),
        ("A modality", "text", "37.2,,80", {"columns": [[37.0, 1.0], [1.0, 2.0], [70.0, 20.0]]}),
    ],
)
def test_the_encoders_keep_the_contract(
    section: str, alike: str, value: Any, options: Any, check: Callable[..., None],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    _, member = add(section, tmp_path / "added", monkeypatch)
    others = {kind: raw for kind, raw in test_models.RAWS.items() if kind != alike}
    monkeypatch.setattr(test_models, "RAWS", {**others, member: value})
    check(test_models.TestEncoders(), member, options)
