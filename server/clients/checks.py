"""The check of an update's norm, before the update changes the global model. `wire.read_params` checks its form."""

import torch

from common.blocks import Params
from common.config.experiment import Federation
from common.errors import DIVERGED, WireError
from common.exchange.privacy import norm
from common.types import Update


def check_norm(update: Update, received: Params, settings: Federation, usual: float) -> float:
    """The L2 norm of an update minus the parameters that the client received.

    received: the client's blocks at the round's start, in the transmitted precision. usual: the median norm of the
    updates of the round before. The median of this round is unknown while its replies come in.

    Raises WireError when the norm exceeds `max_update_norm` or `max_update_ratio`.
    """
    length = norm({name: value.to(torch.float64) - received[name] for name, value in update.params.items()})
    bound, ratio = settings.max_update_norm, settings.max_update_ratio
    if bound is not None and length > bound:
        raise WireError(f"the update has norm {length:.6g}, federation.max_update_norm is {bound:g}")
    # Compute the norm of the received parameters only if it matters, because it costs a pass over them.
    if ratio is not None and length > ratio * usual and length > ratio * (reference := max(usual, norm(received))):
        raise WireError(
            f"the update has norm {length:.6g}. That is more than {ratio:g} times {reference:.6g}, the norm of the "
            f"model or of the usual update (federation.max_update_ratio): {DIVERGED} at the site, or the update is "
            "forged. A lower train.lr may help"
        )
    return length
