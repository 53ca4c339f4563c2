"""Flower's server optimisers, applied to the mean of any strategy.

S. J. Reddi et al., "Adaptive Federated Optimization", ICLR 2021, https://arxiv.org/abs/2003.00295, algorithm 2
(FedAdam, FedYogi); T.-M. H. Hsu, H. Qi, M. Brown, "Measuring the Effects of Non-Identical Data Distribution for
Federated Visual Classification", 2019, https://arxiv.org/abs/1909.06335 (FedAvgM). The arithmetic is Flower's own.
"""

from collections.abc import Mapping, Set
from typing import assert_never

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvgM, FedYogi
from torch import Tensor

from common.blocks import Params
from common.config import experiment as config

MOMENTS = ("momentum_vector", "m_t", "v_t")
"""Attributes of Flower's optimisers that persist from step to step. FedAvgM has a list in the order of the names,
FedAdam and FedYogi have a mapping by name."""


class ServerOptimizer:
    """An optimiser step per round, with the change of the mean as gradient: theta <- step(theta, mean - theta).

    The momentum also moves the block of a modality that no client of the round holds.
    """

    def __init__(self, options: config.ServerOptimizer) -> None:
        self._flower = _strategy(options)
        self._names: list[str] = []

    def step(self, server_round: int, received: Mapping[str, Tensor], mean: Params, learned: Set[str]) -> Params:
        """The new parameters. learned: the names of the optimised parameters. All other parameters, such as running
        statistics and prototypes, get the mean's values."""
        names = self._names = sorted(learned & mean.keys())
        current = {name: received[name].numpy() for name in names}
        if not isinstance(self._flower, FedAvgM):
            self._flower.current_arrays = current
        elif self._flower.current_arrays is None:
            self._flower.current_arrays = _record(current)
        # Flower's optimisers average replies themselves, so they get one reply, the mean.
        reply = RecordDict(
            {
                "arrays": _record({name: mean[name].numpy() for name in names}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        message = Message(reply, dst_node_id=0, message_type="train")
        arrays, _ = self._flower.aggregate_train(server_round, [message])
        assert arrays is not None
        stepped = {name: torch.from_numpy(arrays[name].numpy()).to(mean[name].dtype) for name in names}
        return {**mean, **stepped}

    def state(self) -> Params:
        """The moments so far, by moment and parameter; empty before the first step."""
        found: Params = {}
        for moment in MOMENTS:
            arrays = getattr(self._flower, moment, None) or {}
            named = arrays.items() if isinstance(arrays, Mapping) else zip(self._names, arrays, strict=True)
            found |= {f"{moment}/{name}": torch.from_numpy(value) for name, value in named}
        return found

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Restore the moments from the result of `state`."""
        for moment in MOMENTS:
            arrays = {n.removeprefix(f"{moment}/"): v.numpy() for n, v in state.items() if n.startswith(f"{moment}/")}
            if arrays:
                self._names = sorted(arrays)
                in_order = [arrays[name] for name in self._names]
                setattr(self._flower, moment, in_order if isinstance(self._flower, FedAvgM) else arrays)


def _strategy(options: config.ServerOptimizer) -> FedAvgM | FedAdam | FedYogi:
    match options:
        case config.FedAvgM():
            return FedAvgM(server_learning_rate=options.lr, server_momentum=options.momentum)
        case config.FedAdam():
            return FedAdam(eta=options.lr, beta_1=options.beta_1, beta_2=options.beta_2, tau=options.tau)
        case config.FedYogi():
            return FedYogi(eta=options.lr, beta_1=options.beta_1, beta_2=options.beta_2, tau=options.tau)
        case _:
            assert_never(options)


def _record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(value) for name, value in arrays.items()})
