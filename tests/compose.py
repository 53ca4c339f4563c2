"""Compose files as their services' commands, volumes and variables."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml


@dataclass(frozen=True)
class Volume:
    """A mount: a folder or file of the host, or the name of a volume, and where the service sees it."""

    source: str
    target: str
    read_only: bool = False

    def within(self, others: "Sequence[Volume]") -> bool:
        """Whether another volume already holds the target."""
        return any(PurePosixPath(self.target).is_relative_to(one.target) for one in others if one != self)


@dataclass(frozen=True)
class Service:
    """A service with its variables filled in."""

    command: list[str]
    volumes: list[Volume]
    environment: dict[str, str]
    raw: dict[str, Any] = field(repr=False)


def services(path: Path, variables: Mapping[str, str], *overrides: Path) -> dict[str, Service]:
    """The services of a file by name, as later files change them. Raises KeyError naming a variable that must be
    given."""
    raw = _read(path, variables)
    for other in overrides:
        raw = _merged(raw, _read(other, variables))
    return {name: _service(one) for name, one in raw.items()}


def _read(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    text = re.sub(r"\$\{(\w+)(?::([-?])([^}]*))?\}", lambda found: _value(found, variables), path.read_text())
    found: dict[str, Any] = yaml.safe_load(text)["services"]
    return found


def _merged(one: Any, other: Any) -> Any:
    """Mappings are merged, and other values are replaced. No file of this project adds to a list of another one."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return other
    return one | {key: _merged(one.get(key), value) for key, value in other.items()}


def _value(found: re.Match[str], variables: Mapping[str, str]) -> str:
    name, kind, default = found.groups()
    return variables.get(name, default) if kind == "-" else variables[name]


def _service(raw: dict[str, Any]) -> Service:
    environment = {key: str(value) for key, value in raw.get("environment", {}).items()}
    return Service(raw.get("command", []), [_volume(one) for one in raw.get("volumes", [])], environment, raw)


def _volume(given: str | dict[str, Any]) -> Volume:
    if isinstance(given, dict):
        return Volume(given["source"], given["target"], given.get("read_only", False))
    source, target, *mode = given.split(":")
    return Volume(source, target, mode == ["ro"])
