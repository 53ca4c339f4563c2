"""Plugins: packages of others that add members to the families by entry points.

The pyproject.toml of a package such as focal-loss contains

    [project.entry-points."fedmosaic.methods"]
    focal = "focal_loss.focal"

and the method "focal" exists on every host where the package is installed. A site loads only the plugins that its
policy names and whose content equals that at the server: it runs its messages within `only`, which holds for the
current thread.
"""

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, EntryPoint, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import ConfigError

PREFIX = "fedmosaic."
OURS = "fedmosaic"
PACKAGES = ("client", "common", "deploy", "fedmosaic", "server")
"""Top-level packages of this project."""
HOMES = "fedmosaic.families"
"""Group of this project's own entry points: by family, the package whose modules are its members."""
PLURALS = {"data set": "datasets", "strategy": "strategies"}
VARIABLE = "FEDMOSAIC_PLUGINS"
"""Environment variable of a site without a policy's file: the packages that may run, each as name==version. Engines
that start the clients themselves set it."""
PINNED = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}==[A-Za-z0-9][A-Za-z0-9.!+_-]{0,99}"
"""Pattern of a package in a policy: name==version."""
BLOCK = 1 << 20


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


@dataclass(frozen=True)
class Package:
    """An installed package with entry points of our groups, before anything of it is read. pin: name==version."""

    pin: str
    entries: tuple[EntryPoint, ...] = field(compare=False)

    @property
    def tops(self) -> list[str]:
        """The top-level modules or packages that the entry points name."""
        return sorted({re.split(r"[.:\s]", entry.value.strip())[0] for entry in self.entries})


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

    Raises ConfigError when the project is not installed, or when its entry points leave the project.
    """
    ours = next(iter(distributions(name=OURS)), None)  # the first on the path, as Python imports
    entries = [entry for entry in ours.entry_points if entry.group == HOMES] if ours else []
    if not entries:
        raise ConfigError("installation", ["fedmosaic is not installed here: pip install ."])
    if foreign := [entry.value for entry in entries if entry.value.split(".")[0] not in PACKAGES]:
        raise ConfigError("installation", [f"another package is installed as fedmosaic: {', '.join(foreign)}"])
    return {entry.name.replace("-", " "): entry.value for entry in entries}


def group(family: str) -> str:
    """The group of entry points that adds members to a family, e.g. "fedmosaic.methods"."""
    return PREFIX + PLURALS.get(family, f"{family}s")


@cache
def _found() -> tuple[Mapping[str, Package], Mapping[str, str]]:
    """The usable packages by pin, and by name the reason why a package with our entry points cannot be used. If a
    package is installed twice, Python uses the first installation on the path, and so does this function."""
    groups = {group(family) for family in homes()}
    usable: dict[str, Package] = {}
    unusable: dict[str, str] = {}
    for distribution in distributions():
        try:
            # Only few packages have such entries. Reading the metadata of all takes longer than starting a process.
            entries = tuple(entry for entry in distribution.entry_points if entry.group in groups)
            if not entries:
                continue
            name = _normalised(distribution.metadata["Name"])
            pin = f"{name}=={distribution.version}"
        except Exception as error:  # a damaged installation can contain anything
            unusable[_place(distribution)] = f"its metadata cannot be read: {type(error).__name__}: {error}"
            continue
        if _path(next(iter(distributions(name=name)))) != _path(distribution):
            continue
        if re.fullmatch(PINNED, pin):
            usable[pin] = Package(pin, entries)
        else:
            unusable[_place(distribution)] = "a policy cannot name it: its name or version is missing, or not regular"
    return usable, unusable


def _path(distribution: Distribution) -> Path:
    return Path(str(getattr(distribution, "_path", "a package")))


def _place(distribution: Distribution) -> str:
    return _path(distribution).name


def pins() -> list[str]:
    """Every usable plugin as name==version."""
    return sorted(_found()[0])


def unusable() -> dict[str, str]:
    """By name, the reason why a damaged plugin cannot be used."""
    return dict(_found()[1])


def plugin(pin: str) -> Plugin | None:
    """The installed plugin name==version; None: it is not installed. Reads all its files once per process.

    Raises ConfigError when its content cannot be identified.
    """
    package = _found()[0].get(pin)
    return _identified(package) if package else None


def members(family: str) -> list[str]:
    """The names of the members that the allowed plugins add to a family."""
    return sorted({entry.name for entry, package in _entries(family) if _is_allowed(package)})


def load(family: str, name: str) -> Any:
    """Load the module or the class that the entry point of a member names. None: no plugin has this member.

    Raises ConfigError when two packages have the member, when its package is not allowed, or when loading fails.
    """
    installed = [(entry, package) for entry, package in _entries(family) if entry.name == name]
    found = [(entry, package) for entry, package in installed if _is_allowed(package)]
    if not installed:
        return None
    if not found:
        refused = installed[0][1].pin
        raise ConfigError(
            "plugins", [f"{family} {name!r} comes with the package {refused}, which is not allowed to run here"]
        )
    if len(found) > 1:
        both = " and with ".join(package.pin for _, package in found)
        raise ConfigError("plugins", [f"{family} {name!r} comes with {both}"])
    entry, package = found[0]
    identified = _identified(package)
    if (used := _used.get()) is not None:
        used.add(identified)
    return _loaded(entry, package.pin)


def _entries(family: str) -> list[tuple[EntryPoint, Package]]:
    """The entry points of a family's members, with their packages."""
    packages = _found()[0].values()
    return [(entry, package) for package in packages for entry in package.entries if entry.group == group(family)]


def _is_allowed(package: Package) -> bool:
    allowed = _allowed.get()
    return allowed is None or (package.pin in map(str, allowed) and _identified(package) in allowed)


@cache
def _loaded(entry: EntryPoint, pin: str) -> Any:
    try:
        found = import_module(entry.module)
        return getattr(found, entry.attr) if entry.attr else found
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError("plugins", [f"the package {pin} cannot be loaded: {reason}"]) from error


@cache
def _identified(package: Package) -> Plugin:
    digest = hashlib.sha256()
    try:
        for name, path in _files(package.tops):
            digest.update(f"{name}\0{path.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            with path.open("rb") as file:
                while block := file.read(BLOCK):
                    digest.update(block)
    except (OSError, ValueError, ImportError) as error:
        raise ConfigError("plugins", [f"the content of the package {package.pin} is unknown: {error}"]) from None
    name, _, version = package.pin.partition("==")
    return Plugin(name, version, digest.hexdigest())


def stamps() -> str:
    """A text that changes whenever files of an installed plugin do: their names, sizes and times."""
    said = []
    for pin, package in sorted(_found()[0].items()):
        try:
            files = [(name, path.stat()) for name, path in _files(package.tops)]
            said.append(f"{pin} {[(name, found.st_size, found.st_mtime_ns) for name, found in files]}")
        except (OSError, ValueError, ImportError) as error:
            said.append(f"{pin} {error}")
    return "\n".join(said)


def _files(tops: Iterable[str]) -> list[tuple[str, Path]]:
    """The files of top-level modules or packages by name, without compiled files.

    Raises ValueError when there are none, or when a module is not a plugin's own.
    """
    found = [pair for top in tops for pair in _files_of(top, _spec(top))]
    if not found:
        raise ValueError("it has no files")
    return sorted(found)


def _spec(top: str) -> ModuleSpec:
    if top in PACKAGES or top in sys.stdlib_module_names or top == "__main__":
        raise ValueError(f"its entry points name the module {top}, which is not its own")
    spec = find_spec(top)
    if spec is None:
        raise ValueError(f"there is no module {top}")
    if spec.origin is None:
        raise ValueError(f"{top} is a namespace package; it needs an __init__.py")
    return spec


def _files_of(top: str, spec: ModuleSpec) -> Iterator[tuple[str, Path]]:
    if spec.submodule_search_locations is None:
        yield Path(str(spec.origin)).name, Path(str(spec.origin))
        return
    for place in spec.submodule_search_locations:
        walked = set()
        for folder, folders, files in os.walk(place, followlinks=True):
            if (real := os.path.realpath(folder)) in walked:  # a link that leads upwards
                folders.clear()
                continue
            walked.add(real)
            compiled = os.path.basename(folder) == "__pycache__" and folder != place
            for name in files:
                if not (compiled and name.endswith(".pyc")):
                    path = Path(folder, name)
                    yield f"{top}/{path.relative_to(place).as_posix()}", path


def normalised(pinned: str) -> str:
    """name==version with a normalised name: lower case, with one hyphen for each run of "-", "_" and "."."""
    name, _, version = pinned.partition("==")
    return f"{_normalised(name)}=={version}"


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
