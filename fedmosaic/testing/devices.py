"""The devices on which the contracts are tested: the processor, and a pretended second device."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from common.types import CPU
from fedmosaic.testing.pretend_device import FAR, pretended


@contextmanager
def usable(device: torch.device) -> Iterator[torch.device]:
    """A context in which the device, CPU or FAR, can be used. Gives the device."""
    if device == CPU:
        yield CPU
        return
    with pretended():
        yield device


class OnEveryDevice:
    """The tests of a contract run once per device. A tensor that is not on the device of the model fails a test."""

    @pytest.fixture(params=[CPU, FAR], ids=str)
    def device(self, request: pytest.FixtureRequest) -> Iterator[torch.device]:
        """The device of the member."""
        with usable(request.param) as device:
            yield device
