"""The folder of a plugin: a package with a member of a family, its entry point, and the family's contract as tests."""

import keyword
import re
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from string import Template

from common.config.plugins import group
from common.errors import ConfigError

HERE = Path(__file__).parent
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LONGEST = 60
"""Largest number of characters of a name."""
SITES = "every site and the server"
CONFIG = "fedmosaic run configs/digits-mini-fedcmi.yaml --engine inprocess"


@dataclass(frozen=True)
class Example:
    """The content of the folder for a family. members: modules by their family; the first one is the member that the
    plugin adds for its family. needed: the hosts that need the package."""

    members: dict[str, str]
    needed: str
    command: str


EXAMPLES = {
    "method": Example({"method": "focal"}, SITES, f"{CONFIG} --set method=focal"),
    "encoder": Example({"encoder": "spectrum"}, SITES, f"{CONFIG} --set model.encoders.audio=spectrum"),
    "model": Example({"model": "experts", "method": "fedavg_experts"}, SITES, f"{CONFIG} --set method=fedavg-experts"),
    "strategy": Example({"strategy": "uniform"}, "the server alone", f"{CONFIG} --set strategy=uniform"),
    "metric": Example({"metric": "jaccard"}, "the server alone", f"{CONFIG} --set metrics='[jaccard]'"),
    "tracker": Example({"tracker": "spreadsheet"}, "the server alone", f"{CONFIG} --track spreadsheet"),
    "data set": Example(
        {"data set": "waves"},
        "the host that makes shards, and the server",
        f"{CONFIG} --set name=waves --set data.set=waves --set data.missing='{{incomplete: 0.2}}' \\\n"
        "  --set model.encoders='{signal: {name: signal, channels: 1, length: 64}, text: {name: text}}'",
    ),
    "completer": Example(
        {"completer": "colours"},
        SITES,
        "fedmosaic run configs/birds-mini-co-attention.yaml --engine inprocess --set name=colours \\\n"
        "  --set model.encoders='{image: {name: image, size: 32, channels: 3}, text: {name: text}}' \\\n"
        "  --set completion='{text: {name: colours, source: image}}'",
    ),
}
"""By family."""


def check_name(name: str) -> None:
    """Raises ConfigError for a name that is not valid for a package, or that an installed module already has."""
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        rule = f"use at most {LONGEST} lower-case letters, digits and single hyphens"
        raise ConfigError("--plugin", [f"{name[:LONGEST]!r}: {rule}"])
    if keyword.iskeyword(package_of(name)) or package_of(name) == "tests":
        raise ConfigError("--plugin", [f"{name!r}: a package cannot have this name"])
    if find_spec(package_of(name)) is not None:
        raise ConfigError("--plugin", [f"{name!r}: a module {package_of(name)} is installed already"])


def package_of(name: str) -> str:
    """The package of a distribution, e.g. "focal_loss" of "focal-loss"."""
    return name.replace("-", "_")


def write_plugin(folder: Path, name: str, family: str) -> None:
    """Write the plugin `name` with the example of a family into an existing folder."""
    example, package = EXAMPLES[family], package_of(name)
    first = next(iter(example.members.values()))
    given = {
        "name": name,
        "package": package,
        "release": ".".join(version("fedmosaic").split(".")[:2]),
        "entries": "\n".join(_entry_point(of, module, package) for of, module in example.members.items()),
        "family": family,
        "member": first.replace("_", "-"),
        "needed": example.needed,
        "example": example.command,
    }
    for source in ("pyproject.toml", "README.md"):
        (folder / source).write_text(_filled(HERE / f"{source}.template", given), encoding="utf-8")
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(f'"""A plugin for fedmosaic: the {family} `{first}`."""\n')
    for module in example.members.values():
        text = (HERE / "members" / f"{module}.py").read_text(encoding="utf-8")
        (folder / package / f"{module}.py").write_text(text, encoding="utf-8")
    (folder / "tests").mkdir()
    test = _filled(HERE / "tests" / f"test_{first}.py.template", given)
    (folder / "tests" / f"test_{first}.py").write_text(test, encoding="utf-8")


def _entry_point(family: str, module: str, package: str) -> str:
    name = module.replace("_", "-")
    return f'[project.entry-points."{group(family)}"]\n{name} = "{package}.{module}"\n'


def _filled(path: Path, given: dict[str, str]) -> str:
    return Template(path.read_text(encoding="utf-8")).substitute(given)
