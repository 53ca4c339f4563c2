"""The contract of every method."""

import textwrap
from typing import Any, ClassVar

import pytest
from torch.nn import functional as F

from client.methods import base
from common.config.component import build, own_names
from fedmosaic.testing import MethodContract


class TestEveryMethod(MethodContract):
    @pytest.fixture(params=own_names("method"))
    def method(self, request: pytest.FixtureRequest) -> Any:
        return build("method", {"name": request.param})


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
