"""Server optimisers against their formulas, in NumPy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from conftest import experiment
from test_strategies import strategy

from common.blocks import Params
from common.config.experiment import Experiment
from deploy.engines.in_process import claim_identity
from fedmosaic.testing.strategies import one_round, params
from server.aggregation.optimizer import ServerOptimizer

ROUNDS = 4


def options(**chosen: Any) -> Any:
    made: Experiment = experiment(federation__optimizer=chosen)
    return made.federation.optimizer


def trajectory(optimizer: ServerOptimizer, start: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """The parameter after each round, when the clients' mean is always half way to the target."""
    claim_identity()
    current, seen = start, []
    for number in range(1, ROUNDS + 1):
        received: Params = {"w": torch.from_numpy(current)}
        mean: Params = {"w": torch.from_numpy(((current + target) / 2).astype(np.float32))}
        current = optimizer.step(number, received, mean, {"w"})["w"].numpy()
        seen.append(current)
    return seen


START, TARGET = np.array([0.0, 1.0, -2.0], np.float32), np.array([1.0, -1.0, -2.0], np.float32)


def test_fedavgm() -> None:
    got = trajectory(ServerOptimizer(options(name="fedavgm", lr=0.5, momentum=0.8)), START, TARGET)
    w, velocity = START.astype(float), np.zeros(3)
    for number in range(ROUNDS):
        velocity = 0.8 * velocity + (w - (w + TARGET) / 2)
        w = w - 0.5 * velocity
        assert got[number] == pytest.approx(w, abs=1e-6)


def adam(v: np.ndarray, delta: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """Kingma and Ba's corrected step; Flower counts rounds from 1 and corrects as if one more had passed."""
    return 0.99 * v + 0.01 * delta**2, 0.1 * np.sqrt(1 - 0.99 ** (number + 2)) / (1 - 0.9 ** (number + 2))


def yogi(v: np.ndarray, delta: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    return v - 0.01 * delta**2 * np.sign(v - delta**2), 0.1


@pytest.mark.parametrize(("name", "second_moment_and_step"), [("fedadam", adam), ("fedyogi", yogi)])
def test_adaptive(name: str, second_moment_and_step: Callable[..., tuple[np.ndarray, float]]) -> None:
    got = trajectory(ServerOptimizer(options(name=name, lr=0.1)), START, TARGET)
    w, m, v = START.astype(float), np.zeros(3), np.zeros(3)
    for number in range(ROUNDS):
        delta = (w + TARGET) / 2 - w
        m = 0.9 * m + 0.1 * delta
        v, step = second_moment_and_step(v, delta, number)
        w = w + step * m / (np.sqrt(v) + 1e-3)
        assert got[number] == pytest.approx(w, abs=1e-5)


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi"])
def test_what_is_not_learned_is_the_mean(name: str) -> None:
    claim_identity()
    received, mean = (
        {"w": torch.ones(2), "running_mean": torch.ones(2)},
        {"w": torch.zeros(2), "running_mean": torch.zeros(2)},
    )
    stepped = ServerOptimizer(options(name=name)).step(1, received, mean, {"w"})
    assert torch.equal(stepped["running_mean"], torch.zeros(2))
    assert stepped.keys() == mean.keys()


@pytest.mark.parametrize("name", ["fedavg", "fedcmi"])
def test_without_momentum_fedavgm_is_the_strategy_itself(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start, updates = params(0), [params(1), params(2)]
    held = [{"audio", "image"}, {"audio", "image"}]
    monkeypatch.setattr("server.strategies.base.MultimodalStrategy._learned", lambda self: set(start))
    plain = one_round(strategy(name, held), start, updates, [3, 5], [0, 1])
    chosen = {"federation__optimizer": {"name": "fedavgm", "lr": 1.0, "momentum": 0.0}}
    stepped = one_round(strategy(name, held, **chosen), start, updates, [3, 5], [0, 1])
    assert all(torch.allclose(plain[key], stepped[key], atol=1e-7) for key in plain)
