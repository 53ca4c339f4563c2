"""The components that a config names: a method, a strategy, a model, an encoder, a data set, a completer.

A component is a frozen set of options with a name. The file is the registration: `client/methods/fedcmi.py` is the
method "fedcmi", and the one `Component` class defined in that file checks the options of a config. Other packages add
members by entry points (`common/config/plugins.py`).
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from common.config import plugins
from common.errors import ConfigError

MOST, LONGEST = 10**12, 100_000
"""Largest magnitude of a number, and largest number of characters of a text."""


class Options(BaseModel):
    """Frozen options. Unknown names and wrong types are mistakes. The text below a field is its description in the
    configuration reference."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _within_bounds(cls, given: Any) -> Any:
        """Refuse numbers that would overflow later, and texts that are too long."""
        for name, value in given.items() if isinstance(given, dict) else ():
            for part in (value, *_parts(value)):
                if isinstance(part, int | float) and abs(part) > MOST:
                    raise ValueError(f"{name}: a number is larger than {MOST:g}")
                if isinstance(part, str) and len(part) > LONGEST:
                    raise ValueError(f"{name}: a text is longer than {LONGEST} characters")
        return given


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


class Component(Options):
    """Base of every component. Its fields are the options of the config."""


Reference = dict[str, Any]
"""A component's name and options, e.g. {"name": "fedprox", "mu": 0.1}."""


def families() -> list[str]:
    """The families of components, e.g. "method". Each registers its package in the entry points of this project."""
    return list(plugins.homes())


def names(family: str) -> list[str]:
    """The members of a family as configs spell them, e.g. "digits-mini": those of this project and of plugins."""
    return sorted({*own_names(family), *plugins.members(family)})


def own_names(family: str) -> list[str]:
    """The members of a family that come with this project."""
    package = importlib.import_module(plugins.homes()[family])
    found = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    return sorted(name.replace("_", "-") for name in found if name != "base")


def find(family: str, name: str) -> type[Component]:
    """The component class of a name. A plugin cannot replace a member of this project.

    Raises ConfigError for an unknown name, with the known ones, and for a plugin that is not allowed to run here.
    """
    if name in own_names(family):
        return _own(family, name)
    found = plugins.load(family, name)
    if found is None:
        raise ConfigError("config", [unknown(family, name, names(family))])
    try:
        kind = _component_of(found) if isinstance(found, ModuleType) else found
    except TypeError as error:
        raise ConfigError("plugins", [f"{family} {name!r}: {error}"]) from None
    if not (isinstance(kind, type) and issubclass(kind, _bases(family))):
        expected = " or ".join(base.__name__ for base in _bases(family))
        raise ConfigError("plugins", [f"{family} {name!r}: its entry point names no subclass of {expected}"])
    return kind


@cache
def _bases(family: str) -> tuple[type[Component], ...]:
    """The component classes in the module `base` of a family, one of which every member derives from."""
    module = importlib.import_module(f"{plugins.homes()[family]}.base")
    return tuple(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Component) and value.__module__ == module.__name__
    )


@cache
def _own(family: str, name: str) -> type[Component]:
    return _component_of(importlib.import_module(f"{plugins.homes()[family]}.{name.replace('-', '_')}"))


def _component_of(module: ModuleType) -> type[Component]:
    """The one component that a module defines."""
    defined = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Component)
        and value.__module__ == module.__name__
        and value.__name__.isidentifier()  # pydantic leaves the parametrised bases of generic classes here
    ]
    if len(defined) != 1:
        raise TypeError(f"{module.__name__} must define exactly one Component, it defines {len(defined)}")
    return defined[0]


def unknown(kind: str, name: object, known: list[str]) -> str:
    """The message for an unknown name, with the known names and the most similar one."""
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}; known: {', '.join(known)}{hint}"


def build(family: str, reference: dict[str, Any]) -> Any:
    """The component for a config section such as {"name": "fedprox", "mu": 0.1}."""
    options = {key: value for key, value in reference.items() if key != "name"}
    return find(family, reference["name"])(**options)
