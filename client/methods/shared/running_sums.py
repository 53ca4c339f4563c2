"""Sums over examples that sites send with their updates, as means over the rounds."""

from collections.abc import Mapping

from torch import Tensor, nn


def write_running_mean(
    model: nn.Module, received: Mapping[str, Tensor], own: Mapping[str, Tensor], number: int
) -> None:
    """Write ((r - 1) s + s_k) / r into the buffers of a model.

    received: s, the sums that the server sent, own: s_k, the client's own sums divided by its number of examples, both
    by name of the buffer. number: the round r, from 1. After the server's mean over the clients, the sums are the mean
    of those of the rounds 1 to r, so clients that are not sampled in a round still count.
    """
    for name, value in own.items():
        model.get_buffer(name).copy_((received[name] * (number - 1) + value) / number)
