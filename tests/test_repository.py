"""The code base itself."""

import ast
import re
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from common.datasets.digits_mini import DigitsMini
from deploy.engines.app_folder import make_app_folder

SOURCES = sorted(
    path for side in ("fedmosaic", "server", "client", "common", "deploy") for path in (ROOT / side).rglob("*.py")
)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_functions_have_docstrings_and_nothing_is_pickled(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\bpickle\b(?!d)", text)
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith(("_", "test_")):
            inner = any(node in ast.walk(other) for other in ast.walk(tree)
                        if isinstance(other, ast.FunctionDef) and other is not node)  # fmt: skip
            assert inner or ast.get_docstring(node), f"{path.name}: {node.name}"


def drawn() -> set[str]:
    """Folders and files of the map in docs/architecture.md; folders end with a slash."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    above: list[str] = []
    found = set()
    for indent, name in re.findall(r"^    ( *)([a-z_]+(?:/|\.py))  ? *\S", text, re.MULTILINE):
        above = [*above[: len(indent) // 2], name]
        found.add("".join(above))
    return found


def test_the_map_shows_every_package_and_what_stands_beside_them() -> None:
    packages = {path.parent for path in SOURCES if path.name == "__init__.py"}
    loose = {path for path in SOURCES if path.name != "__init__.py" and path.parent.parent == ROOT}
    expected = {f"{path.relative_to(ROOT)}/" for path in packages} | {str(path.relative_to(ROOT)) for path in loose}
    assert drawn() == expected


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.name == "__init__.py"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_package_says_what_lives_there(path: Path) -> None:
    assert (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0].endswith(".")


FAMILIES_AND_COMMANDS = {
    "methods",
    "completion",
    "datasets",
    "encoders",
    "metrics",
    "models",
    "strategies",
    "trackers",
    "commands",
}


@pytest.mark.parametrize(
    "folder", sorted({path.parent for path in SOURCES}), ids=lambda path: str(path.relative_to(ROOT))
)
def test_a_folder_has_about_ten_files(folder: Path) -> None:
    assert folder.name in FAMILIES_AND_COMMANDS or len(list(folder.glob("*.py"))) <= 14


def test_flwr_run_and_the_launcher_agree_on_the_settings(tmp_path: Path) -> None:
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    settings = dict.fromkeys(ours["config"], 'a "quoted" value')
    make_app_folder(tmp_path / "app", settings)
    made = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert made == ours | {"config": settings}
    assert not list((tmp_path / "app").rglob("*.zip"))


def test_constraints_pin_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()
    }
    for requirement in wanted:
        assert re.split(r"[\[=><~ ]", requirement)[0].lower().replace("_", "-") in pinned, requirement


def test_the_embedded_clips_are_small_and_the_test_voices_are_never_heard_in_training() -> None:
    assert (ROOT / "common/datasets/assets/digits_mini.zip").stat().st_size <= 4_000_000
    with zipfile.ZipFile(ROOT / "common/datasets/assets/digits_mini.zip") as archive:
        clips = [name for name in archive.namelist() if name.endswith(".flac")]
        assert len({archive.read(name) for name in clips}) == len(clips) == 1470
    train, test = (DigitsMini().examples(part, seed=1) for part in ("train", "test"))
    assert len(train) > 1000
    assert len(test) >= 300
    assert not {example.group for example in train} & {example.group for example in test}
