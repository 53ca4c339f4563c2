"""The contract of every method."""

from typing import Any

import pytest

from common.config.component import build, own_names
from fedmosaic.testing import MethodContract


class TestEveryMethod(MethodContract):
    @pytest.fixture(params=own_names("method"))
    def method(self, request: pytest.FixtureRequest) -> Any:
        return build("method", {"name": request.param})
