"""Plugins: packages of others that add members to the families by entry points.

The pyproject.toml of a package such as focal-loss contains

    [project.entry-points."fedmosaic.methods"]
    focal = "focal_loss.focal"

and the method "focal" exists on every host where the package is installed. A site loads a plugin only if its policy
names the plugin and the plugin has the same content as at the server. For this, the site handles each message within
`only`.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import ConfigError

PREFIX = "fedmosaic."
OURS = "fedmosaic"
HOMES = "fedmosaic.families"
"""Group of this project's own entry points: by family, the package whose modules are its members."""
PLURALS = {"data set": "datasets", "strategy": "strategies"}
VARIABLE = "FEDMOSAIC_PLUGINS"
"""Environment variable of a site without a policy's file: the packages that may run, each as name==version. Engines
that start the clients themselves set it."""
PINNED = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}==[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}"
"""Pattern of a package in a policy: name==version."""


@dataclass(frozen=True, order=True)
class Plugin:
    """An installed package with members of families. digest: SHA-256 of all files in the top-level packages that its
    entry points name, without compiled files."""

    name: str
    version: str
    digest: str

    def __str__(self) -> str:
        """The form of a policy: name==version."""
        return f"{self.name}=={self.version}"


_allowed: ContextVar[frozenset[Plugin] | None] = ContextVar("allowed plugins", default=None)
_used: ContextVar[set[Plugin] | None] = ContextVar("used plugins", default=None)


@contextmanager
def only(plugins: Iterable[Plugin] | None) -> Iterator[None]:
    """Allow no other plugin within the context. None: allow every installed one."""
    before = _allowed.set(None if plugins is None else frozenset(plugins))
    try:
        yield
    finally:
        _allowed.reset(before)


def allowed() -> frozenset[Plugin] | None:
    """The plugins that `only` allows here; None: every installed one."""
    return _allowed.get()


@contextmanager
def recorded() -> Iterator[set[Plugin]]:
    """Yield a set that receives every plugin whose member is loaded within the context."""
    found: set[Plugin] = set()
    before = _used.set(found)
    try:
        yield found
    finally:
        _used.reset(before)


@cache
def homes() -> dict[str, str]:
    """By family, the package of this project whose modules are its members.

    Raises ConfigError when the project is not installed.
    """
    found = {
        entry.name.replace("-", " "): entry.value
        for distribution in distributions(name=OURS)
        for entry in distribution.entry_points
        if entry.group == HOMES
    }
    if not found:
        raise ConfigError("installation", ["fedmosaic is not installed here: pip install ."])
    return found


def group(family: str) -> str:
    """The group of entry points that adds members to a family, e.g. "fedmosaic.methods"."""
    return PREFIX + PLURALS.get(family, f"{family}s")


@cache
def _installed() -> Mapping[str, tuple[tuple[EntryPoint, Distribution], ...]]:
    """Entry points of other packages by group. If a package is installed twice, this function uses the first
    installation on the path, as Python does."""
    found: dict[str, list[tuple[EntryPoint, Distribution]]] = {}
    seen = {_normalised(OURS)}
    for distribution in distributions():
        name = _normalised(distribution.metadata["Name"] or "")
        entries = [entry for entry in distribution.entry_points if entry.group.startswith(PREFIX)]
        if entries and name not in seen:
            seen.add(name)
            for entry in entries:
                found.setdefault(entry.group, []).append((entry, distribution))
    return {name: tuple(entries) for name, entries in found.items()}


def members(family: str) -> list[str]:
    """The names of the members that the allowed plugins add to a family."""
    entries = _installed().get(group(family), ())
    allowed = _allowed.get()
    return sorted({entry.name for entry, package in entries if allowed is None or plugin(package) in allowed})


def load(family: str, name: str) -> Any:
    """Load the module or the class that the entry point of a member names. None: no plugin has this member.

    Raises ConfigError when two packages have the member, when its package is not allowed, or when loading fails.
    """
    entries = [(entry, package) for entry, package in _installed().get(group(family), ()) if entry.name == name]
    if not entries:
        return None
    packages = [plugin(package) for _, package in entries]
    if len(packages) > 1:
        raise ConfigError("plugins", [f"{family} {name!r} comes with {' and with '.join(map(str, packages))}"])
    allowed = _allowed.get()
    if allowed is not None and packages[0] not in allowed:
        raise ConfigError(
            "plugins", [f"{family} {name!r} comes with the package {packages[0]}, which is not allowed to run here"]
        )
    if (used := _used.get()) is not None:
        used.add(packages[0])
    return _loaded(entries[0][0], packages[0])


@cache
def _loaded(entry: EntryPoint, package: Plugin) -> Any:
    module, _, attribute = entry.value.partition(":")
    try:
        found = import_module(module.strip())
        return getattr(found, attribute.strip()) if attribute else found
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError("plugins", [f"the package {package} cannot be loaded: {reason}"]) from error


def plugins() -> list[Plugin]:
    """Every installed plugin."""
    return sorted({plugin(package) for entries in _installed().values() for _, package in entries})


def plugin(distribution: Distribution) -> Plugin:
    """The plugin of a distribution. Reads its files once per process."""
    return _plugin(distribution.metadata["Name"], distribution.version, _top_levels(distribution))


def _top_levels(distribution: Distribution) -> tuple[str, ...]:
    entries = [entry for entry in distribution.entry_points if entry.group.startswith(PREFIX)]
    return tuple(sorted({re.split(r"[.:\s]", entry.value)[0] for entry in entries}))


@cache
def _plugin(name: str, version: str, top_levels: tuple[str, ...]) -> Plugin:
    digest = hashlib.sha256()
    for top in top_levels:
        for name_, path in _files(top):
            content = path.read_bytes()
            digest.update(f"{name_}\0{len(content)}\0".encode() + content)
    return Plugin(_normalised(name), version, digest.hexdigest())


def _files(top: str) -> list[tuple[str, Path]]:
    """The files of a top-level module or package by name, without compiled files."""
    spec = find_spec(top)
    if spec is None:
        return []
    if spec.submodule_search_locations is None:
        return [(f"{top}.py", Path(spec.origin))] if spec.origin else []
    folders = [Path(place) for place in spec.submodule_search_locations]
    files = [(folder, path) for folder in folders for path in folder.rglob("*") if path.is_file()]
    named = [(f"{top}/{path.relative_to(folder).as_posix()}", path) for folder, path in files]
    return sorted((name, path) for name, path in named if "__pycache__" not in path.parts)


def normalised(pinned: str) -> str:
    """name==version with a normalised name: lower case, with one hyphen for each run of "-", "_" and "."."""
    name, _, version = pinned.partition("==")
    return f"{_normalised(name)}=={version}"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
