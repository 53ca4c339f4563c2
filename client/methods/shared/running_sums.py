"""Sums over examples that sites send with their updates, as means over the rounds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from client.methods.base import Round


@dataclass(frozen=True)
class ReceivedSums:
    """now: the round. received: the sums that the server sent, by name of the buffer."""

    now: Round
    received: Mapping[str, Tensor]


def received_sums(model: nn.Module, names: Iterable[str], now: Round) -> ReceivedSums:
    """Copies of the buffers with these names."""
    return ReceivedSums(now, {name: model.get_buffer(name).clone() for name in names})


def write_running_mean(model: nn.Module, context: ReceivedSums, own: Mapping[str, Tensor]) -> None:
    """Write ((r - 1) s + s_k) / r into the buffers of a model, with the received sums s and the round r.

    own: s_k, the client's own sums divided by its number of examples, by name of the buffer. After the server's mean
    over the clients, the sums are the mean of those of the rounds 1 to r, so clients that are not sampled in a round
    still count.
    """
    r = context.now.number
    for name, value in own.items():
        model.get_buffer(name).copy_((context.received[name] * (r - 1) + value) / r)
