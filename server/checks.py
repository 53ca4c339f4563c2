"""What a reply must look like before it may touch the global model."""

from collections.abc import Mapping

from torch import Tensor

from common.blocks import select
from common.errors import WireError
from common.types import Update


def check_update(update: Update, received: Mapping[str, Tensor]) -> None:
    """Compare an update with the parameters that were sent.

    Raises WireError with the reason to refuse it: other parameters than the client's blocks, other shapes, values that
    are not finite.
    """
    expected = select(received, update.held)
    if update.params.keys() != expected.keys():
        lacking = sorted(expected.keys() - update.params.keys())[:3]
        surplus = sorted(update.params.keys() - expected.keys())[:3]
        raise WireError(f"the update has other parameters than expected: lacking {lacking}, surplus {surplus}")
    for name, value in update.params.items():
        if value.shape != expected[name].shape:
            raise WireError(f"{name} has shape {list(value.shape)}, expected {list(expected[name].shape)}")
        if not value.isfinite().all():
            raise WireError(f"{name} has values that are not finite")
