"""The contracts that every member of a family keeps, as pytest classes for the tests of a plugin. Imports the other
packages of the project, whose own tests use the same classes.

The test class of a plugin derives from the class of its family, and a fixture returns the member to test:

    import pytest
    from fedmosaic.testing import MethodContract
    from focal_loss.focal import Focal

    class TestFocal(MethodContract):
        @pytest.fixture
        def method(self) -> Focal:
            return Focal(gamma=2.0)
"""

import pytest

pytest.register_assert_rewrite(
    *(
        f"fedmosaic.testing.{name}"
        for name in (
            "completers",
            "data_sets",
            "devices",
            "encoders",
            "methods",
            "metrics",
            "models",
            "strategies",
            "trackers",
        )
    )
)

from fedmosaic.testing.completers import CompleterContract  # noqa: E402  (the asserts above are rewritten first)
from fedmosaic.testing.data_sets import DataSetContract  # noqa: E402
from fedmosaic.testing.encoders import EncoderContract  # noqa: E402
from fedmosaic.testing.methods import MethodContract  # noqa: E402
from fedmosaic.testing.metrics import MetricContract  # noqa: E402
from fedmosaic.testing.models import ModelContract  # noqa: E402
from fedmosaic.testing.strategies import StrategyContract  # noqa: E402
from fedmosaic.testing.trackers import TrackerContract  # noqa: E402

__all__ = [
    "CompleterContract",
    "DataSetContract",
    "EncoderContract",
    "MethodContract",
    "MetricContract",
    "ModelContract",
    "StrategyContract",
    "TrackerContract",
]
