"""The contract of a strategy: one round with parameters that belong to no real model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import Strategy

from common.blocks import Params, block_of, select
from common.errors import RunError
from common.exchange import wire
from common.types import Site
from deploy.engines.in_process import claim_identity
from fedmosaic.testing.devices import OnEveryDevice
from fedmosaic.testing.examples import experiment
from server.strategies.base import MultimodalStrategy

SHAPES = {"branches.audio.w": (3, 2), "branches.image.w": (4,), "fusion.weight": (2, 3), "fusion.bias": ()}
HELD = [{"audio", "image"}, {"audio"}, {"audio", "image"}]
"""The modalities of the three sites."""
EXAMPLES = [5, 7, 11]

SPOILED: list[tuple[Callable[[Params], Params], str]] = [
    (
        lambda p: p | {"fusion.bias": torch.tensor(float("nan"))},
        "fusion.bias has values that are not finite",
    ),
    (lambda p: p | {"fusion.weight": torch.zeros(7)}, "fusion.weight has shape"),
    (lambda p: p | {"branches.image.w": torch.zeros(4)}, "unexpected"),
    (lambda p: {k: v for k, v in p.items() if k != "fusion.bias"}, "missing"),
    (lambda p: p | {"fusion.weight": torch.zeros(10_000)}, "the expected blocks need 52 and at most"),
]
"""Bad updates, each with a part of the reason of the refusal."""


class NoGrid:
    """A strategy whose sites are known does not use the grid."""


def params(seed: int) -> Params:
    """Random parameters of SHAPES."""
    rng = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}


def with_sites(strategy: MultimodalStrategy, held: Sequence[set[str]]) -> MultimodalStrategy:
    """The strategy with sites "site-0", ... of 20 examples and two classes that hold these modalities."""
    claim_identity()
    for i, modalities in enumerate(held):
        strategy.sites[i + 10] = Site(f"site-{i}", frozenset(modalities), ("x", "y"), 20, {})
    return strategy


def reply(to: Message, strategy: MultimodalStrategy, update: Params, examples: int, **extra: Any) -> Message:
    """A client's reply to a training message."""
    node = to.metadata.dst_node_id
    body = {
        "site": strategy.sites[node].name,
        "round": 1,
        "num_examples": examples,
        "losses": {"fused": 1.0},
        "validation": {},
        "unreadable": {},
        "seconds": {},
        **extra,
    }
    message = Message(wire.record(body, wire.pack(update)), reply_to=to)
    message.metadata.__dict__["_src_node_id"] = node
    return message


def one_round(
    strategy: MultimodalStrategy,
    start: Params,
    updates: Sequence[Params],
    examples: Sequence[int] = EXAMPLES,
    order: Sequence[int] = (0, 1, 2),
) -> Params:
    """The parameters after a round whose replies come in that order."""
    messages = list(strategy.configure_train(1, wire.pack(start), ConfigRecord(), NoGrid()))  # type: ignore[arg-type]
    replies = [reply(messages[i], strategy, updates[i], examples[i]) for i in range(len(messages))]
    arrays, _ = strategy.aggregate_train(1, [replies[i] for i in order])
    assert arrays is not None
    return wire.unpack(arrays)


class StrategyContract(OnEveryDevice):
    """Override the fixture `options`. A strategy that needs a probe set gets the path "probe" for it."""

    @pytest.fixture
    def options(self) -> Any:
        """The strategy's options."""
        raise NotImplementedError

    @pytest.fixture
    def strategy(self, options: Any, device: torch.device) -> Callable[..., MultimodalStrategy]:
        """The strategy for sites and changed options of the experiment."""

        def built(held: Sequence[set[str]] = HELD, **changes: Any) -> MultimodalStrategy:
            claim_identity()
            made: MultimodalStrategy = options.build(experiment(**changes), Path("probe"))
            made.use(device)
            return with_sites(made, held)

        return built

    def test_is_a_strategy_of_flower(self, strategy: Callable[..., MultimodalStrategy]) -> None:
        assert isinstance(strategy(), Strategy)

    def test_identical_updates_aggregate_to_themselves(self, strategy: Callable[..., MultimodalStrategy]) -> None:
        start = params(0)
        got = one_round(strategy(), start, [select(start, held) for held in HELD])
        assert all(torch.allclose(got[key], start[key], rtol=1e-6) for key in start)

    def test_the_order_of_the_clients_is_irrelevant(self, strategy: Callable[..., MultimodalStrategy]) -> None:
        updates = [select(params(i + 1), held) for i, held in enumerate(HELD)]
        first, second = (one_round(strategy(), params(0), updates, order=order) for order in ([0, 1, 2], [2, 0, 1]))
        assert all(torch.allclose(first[key], second[key], rtol=1e-6) for key in SHAPES)

    def test_a_client_is_sent_the_blocks_that_it_holds(self, strategy: Callable[..., MultimodalStrategy]) -> None:
        messages = list(strategy().configure_train(1, wire.pack(params(0)), ConfigRecord(), NoGrid()))  # type: ignore[arg-type]
        for message, held in zip(messages, HELD, strict=True):
            sent = wire.unpack(message.content.array_records["params"])
            assert {block_of(key) for key in sent} == held | {"shared"}

    def test_a_sample_is_a_function_of_seed_and_round(self, strategy: Callable[..., MultimodalStrategy]) -> None:
        draws = []
        for number in (1, 1, 2, 3, 4):
            made = strategy([{"audio"}] * 8, data__clients=8, federation__sample=3)
            made.begin_round(number, wire.pack(params(0)))
            draws.append(made.sample())
        assert draws[0] == draws[1]
        assert all(len(set(draw)) == 3 for draw in draws)
        assert len({tuple(draw) for draw in draws}) > 1

    @pytest.mark.parametrize(("spoil", "reason"), SPOILED)
    def test_a_bad_update_is_refused_with_site_and_reason(
        self, strategy: Callable[..., MultimodalStrategy], spoil: Callable[[Params], Params], reason: str
    ) -> None:
        start = params(0)
        updates = [select(start, held) for held in HELD]
        updates[1] = spoil(updates[1])
        lenient = strategy(federation__min_replies=1, data__clients=3)
        got = one_round(lenient, start, updates, [1, 1, 1])
        assert all(torch.allclose(got[key], start[key]) for key in start)
        assert reason in lenient.report.failed["site-1"]
        with pytest.raises(RunError, match="site-1"):
            one_round(strategy(federation__min_replies=3, data__clients=3), start, updates, [1, 1, 1])
