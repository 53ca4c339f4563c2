"""What an update must be before it may touch the global model, beyond the form that `wire.read_params` asks for."""

import torch

from common.blocks import Params
from common.errors import WireError
from common.privacy import norm
from common.types import Update


def check_norm(update: Update, received: Params, bound: float | None) -> None:
    """Compare the L2 norm of an update minus what the client received with a bound (None: there is none).

    received: the client's blocks at the round's start, as they travelled.

    Raises WireError when it is longer.
    """
    if bound is None:
        return
    length = norm({name: value.to(torch.float64) - received[name] for name, value in update.params.items()})
    if length > bound:
        raise WireError(f"the update has norm {length:.6g}, federation.max_update_norm is {bound:g}")
