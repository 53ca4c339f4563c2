"""The contract of every method."""

import textwrap
from typing import Any, ClassVar

import pytest
from torch.nn import functional as F

from client.methods import base
from common.config.component import build, own_names
from fedmosaic.testing import MethodContract
from fedmosaic.testing.methods import CASES, Case

METHODS = {name: build("method", {"name": name}) for name in own_names("method")}
SMALL = {name: {"width": 16, "heads": 2, "joint_heads": 2, "depth": 1} for name in ("joint", "joint-shared")}
"""Options of large models."""


class TestEveryMethod(MethodContract):
    @pytest.fixture(
        params=[(name, case) for name, method in METHODS.items() for case in CASES if case.task in method.tasks],
        ids=lambda pair: f"{pair[0]}-{pair[1]}",
    )
    def pair(self, request: pytest.FixtureRequest) -> tuple[str, Case]:
        found: tuple[str, Case] = request.param
        return found

    @pytest.fixture
    def method(self, pair: tuple[str, Case]) -> Any:
        return METHODS[pair[0]]

    @pytest.fixture
    def case(self, pair: tuple[str, Case]) -> Case:
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

    @pytest.fixture(params=[case for case in CASES if case.task == "single-label"], ids=str)
    def case(self, request: pytest.FixtureRequest) -> Case:
        found: Case = request.param
        return found
