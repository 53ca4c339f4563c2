"""The contract of the data sets that need no files."""

from typing import Any

import pytest

from common.config.component import build
from fedmosaic.testing import DataSetContract

EMBEDDED: list[dict[str, Any]] = [
    {"name": "digits-mini"},
    {"name": "digit-facts"},
    {"name": "digit-facts", "labels": "value"},
    {"name": "breast-cancer", "missing_cells": 0.3},
    {"name": "birds-mini", "train_per_class": 2, "test_per_class": 1},
]


class TestEveryEmbeddedDataSet(DataSetContract):
    @pytest.fixture(params=EMBEDDED, ids=lambda reference: str(reference["name"]))
    def data_set(self, request: pytest.FixtureRequest) -> Any:
        return build("data set", request.param)
