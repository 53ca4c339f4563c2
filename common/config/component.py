"""What a config names: a method, a strategy, a model, an encoder, a data set.

A component is a frozen set of options with a name. The file is the registration: `client/methods/fedcmi.py` is the
method "fedcmi", and the one `Component` class defined in that file is what a config's options are checked against.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from common.errors import ConfigError

FAMILIES = {
    "data set": "common.datasets",
    "encoder": "common.encoders",
    "model": "common.models",
    "completer": "client.completion",
    "method": "client.methods",
    "strategy": "server.strategies",
}
"""Families by name, each with the package whose modules are its members. Members are loaded by name, so that common
needs no import of the client's or the server's code."""


MOST, LONGEST = 10**12, 100_000
"""Magnitude of a number, and characters of a text."""


class Options(BaseModel):
    """Frozen options; unknown names and wrong types are mistakes. The text below a field is its description, which
    the configuration reference shows."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _within_bounds(cls, given: Any) -> Any:
        """What comes from elsewhere fits into the machine's own numbers, so that nothing breaks on it later."""
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
    """Base of every registered class; its fields are the options of the config."""


Reference = dict[str, Any]
"""A component by name with its options, e.g. {"name": "fedprox", "mu": 0.1}."""


def names(family: str) -> list[str]:
    """The members of a family as configs spell them, e.g. "digits-mini"."""
    package = importlib.import_module(FAMILIES[family])
    found = [module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg]
    return sorted(name.replace("_", "-") for name in found if name != "base")


@cache
def find(family: str, name: str) -> type[Component]:
    """The component class of a name.

    Raises ConfigError, listing what exists, for an unknown name.
    """
    known = names(family)
    if name not in known:
        raise ConfigError("config", [unknown(family, name, known)])
    module = importlib.import_module(f"{FAMILIES[family]}.{name.replace('-', '_')}")
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
    """The message for a name that does not exist: what exists, and the nearest to what was written."""
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {name!r}; known: {', '.join(known)}{hint}"


def build(family: str, reference: dict[str, Any]) -> Any:
    """The component for a config section such as {"name": "fedprox", "mu": 0.1}."""
    options = {key: value for key, value in reference.items() if key != "name"}
    return find(family, reference["name"])(**options)
