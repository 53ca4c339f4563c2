"""The devices on which the contracts are tested: the processor, and a pretended second device."""

from collections.abc import Iterator

import pytest
import torch

from common.types import CPU
from fedmosaic.testing.pretend_device import FAR, pretended


class OnEveryDevice:
    """The tests of a contract run once per device. A tensor that is not on the device of the model fails a test."""

    @pytest.fixture(params=[CPU, FAR], ids=str)
    def device(self, request: pytest.FixtureRequest) -> Iterator[torch.device]:
        """The device of the member."""
        if request.param == CPU:
            yield CPU
            return
        with pretended() as device:
            yield device
