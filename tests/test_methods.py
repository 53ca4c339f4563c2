"""The contract of every method."""

import textwrap
from typing import Any, ClassVar

import pytest
from torch.nn import functional as F

from client.methods import base
from common.config.component import build, own_names
from common.config.task import TaskName
from fedmosaic.testing import MethodContract

METHODS = {name: build("method", {"name": name}) for name in own_names("method")}
SMALL = {"joint": {"width": 16, "heads": 2, "joint_heads": 2, "depth": 1}}
"""Options of large models."""


class TestEveryMethod(MethodContract):
    @pytest.fixture(
        params=[(name, task) for name, method in METHODS.items() for task in sorted(method.tasks)], ids="-".join
    )
    def pair(self, request: pytest.FixtureRequest) -> tuple[str, TaskName]:
        found: tuple[str, TaskName] = request.param
        return found

    @pytest.fixture
    def method(self, pair: tuple[str, TaskName]) -> Any:
        return METHODS[pair[0]]

    @pytest.fixture
    def task(self, pair: tuple[str, TaskName]) -> TaskName:
        return pair[1]

    @pytest.fixture
    def options(self, method: Any) -> dict[str, Any]:
        return SMALL.get(method.model, {})


class TestTheExampleOfTheInterface(MethodContract):
    @pytest.fixture
    def method(self) -> Any:
        """The class in the docstring of `client/methods/base.py`."""
        assert base.__doc__ is not None
        (code,) = [part for part in base.__doc__.split("\n\n") if "class Plain" in part]
        rest = base.__doc__[base.__doc__.index(code) :].split("\nThe terms")[0]
        known: dict[str, Any] = {**vars(base), "ClassVar": ClassVar, "F": F}
        exec(textwrap.dedent(rest), known)
        return known["Plain"]()

    @pytest.fixture
    def task(self) -> TaskName:
        return "single-label"
