"""What an update must be before it may touch the global model, beyond the form that `wire.read_params` asks for."""

import torch

from common.blocks import Params
from common.config.experiment import Federation
from common.errors import DIVERGED, WireError
from common.exchange.privacy import norm
from common.types import Update


def check_norm(update: Update, received: Params, settings: Federation, usual: float) -> float:
    """The L2 norm of an update minus what the client received.

    received: the client's blocks at the round's start, as they travelled. usual: the median norm of the updates of the
    round before. That of this round is not known while replies are folded in as they come.

    Raises WireError when it is longer than `max_update_norm` or `max_update_ratio` allow.
    """
    length = norm({name: value.to(torch.float64) - received[name] for name, value in update.params.items()})
    bound, ratio = settings.max_update_norm, settings.max_update_ratio
    if bound is not None and length > bound:
        raise WireError(f"the update has norm {length:.6g}, federation.max_update_norm is {bound:g}")
    # The norm of what was received costs a pass over it, and seldom decides.
    if ratio is not None and length > ratio * usual and length > ratio * (reference := max(usual, norm(received))):
        raise WireError(
            f"the update has norm {length:.6g}, more than {ratio:g} times {reference:.6g}, that of the model or of the "
            f"usual update (federation.max_update_ratio): {DIVERGED} there, where a lower train.lr may help, or it is "
            "forged"
        )
    return length
