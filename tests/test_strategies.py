"""Strategies: the contract of each, and means derived independently."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import experiment
from flwr.app import ConfigRecord, Message
from flwr.serverapp.strategy import FedAvg as StockFedAvg
from hypothesis import given, settings
from hypothesis import strategies as st

from common.blocks import select
from common.config.component import build, own_names
from common.exchange import wire
from deploy.engines.in_process import claim_identity
from fedmosaic.testing import StrategyContract
from fedmosaic.testing.strategies import HELD, NoGrid, one_round, params, reply, with_sites
from server.aggregation.block_mean import BlockMean
from server.strategies.base import MultimodalStrategy

STRATEGIES = own_names("strategy")
OPTIONS = {"dp-mean": {"clip": 1e6, "noise": 1e-15}}
"""Noise of dp-mean is secret and never the same: here it is too small to be seen, and nothing is clipped."""


class ToyProbe:
    """A probe set for the parameters of SHAPES, which are those of no model."""

    classes = ("x", "y")

    def __init__(self, *_: object) -> None:
        self.inputs = torch.randn(6, 3, generator=torch.Generator().manual_seed(9))

    def use(self, device: torch.device) -> None:
        self.device = device
        self.inputs = self.inputs.to(device)

    def represent(self, params: Mapping[str, torch.Tensor], kind: str = "joint") -> torch.Tensor:
        there = {name: value.to(self.device) for name, value in params.items()}
        return ((self.inputs @ there["branches.audio.w"]) @ there["fusion.weight"] + there["fusion.bias"]).cpu()


@pytest.fixture(autouse=True)
def _toy_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.strategies.cka.ProbeSet", ToyProbe)


def strategy(name: str, held: list[set[str]], **changes: Any) -> MultimodalStrategy:
    claim_identity()
    options = build("strategy", {"name": name, **OPTIONS.get(name, {})})
    return with_sites(options.build(experiment(**changes), Path("probe")), held)


def counts(wrong: int, right: int, confusion: list[int] | None = None, sure: float = 0.0) -> Any:
    """Validation counts of two classes. confusion: the four cells."""
    said = {"answers": {"at": [0, 1], "counts": [wrong, right], "sums": [0.0]}}
    if confusion is not None:
        said["confusion"] = {"at": [0, 1, 2, 3], "counts": confusion, "sums": [sure, 0.0]}
    return said


class TestEveryStrategy(StrategyContract):
    @pytest.fixture(params=STRATEGIES)
    def options(self, request: pytest.FixtureRequest) -> Any:
        return build("strategy", {"name": request.param, **OPTIONS.get(request.param, {})})


class TestCKAOfChanges(StrategyContract):
    @pytest.fixture
    def options(self) -> Any:
        return build("strategy", {"name": "cka", "compare": "change", "importance": "median", "sharpness": 2.0})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"num_examples": 0}, "num_examples"),
        ({"num_examples": "many"}, "num_examples"),
        ({"round": 7}, "for round 7"),
        ({"losses": {"fused": 1e999}}, "losses.fused"),
        ({"losses": 3}, "losses"),
        ({"seconds": {"train": -1.0}}, "seconds.train"),
        ({"validation": {"audio": {"answers": {"at": [2], "counts": [1], "sums": [0.5]}}}}, "a table with 2 cells"),
        ({"validation": {"audio": {"answers": {"at": [0], "counts": [-1], "sums": [0.0]}}}}, "validation.audio"),
        ({"validation": {"audio": {"answers": {"at": [0], "counts": [1], "sums": []}}}}, "0 sums instead of 1"),
        ({"validation": {"audio": {"secrets": {"at": [0], "counts": [1], "sums": []}}}}, "unknown counts"),
        ({"num_examples": 21}, "21 examples, but the site's introduction has 20"),
        ({"num_examples": 10**400}, "num_examples"),
        ({"losses": {"fused": 1e300}}, "losses.fused"),
        ({"validation": {"image": counts(2, 0)}}, "validation of image: the site has only audio"),
        ({"validation": {"audio": counts(15, 6)}}, "21 examples, but the site's introduction has"),
        ({"validation": {"audio": counts(3, 3, [1, 1, 4, 1])}}, "different numbers of examples: 6, 7"),
        ({"validation": {"audio": counts(3, 3, [1, 1, 3, 1], sure=2.5)}}, "sums of confusion are impossible"),
        ({"error": "no more"}, "no more"),
        ({"losses": {f"loss {i}": 0.0 for i in range(20_000)}}, "losses: Dictionary should have at most 200 items"),
        ({"seconds": dict.fromkeys(map(str, range(201)), 1.0)}, "seconds: Dictionary"),
        ({"losses": {"x" * 201: 0.0}}, "losses"),
        ({"error": "x" * 10**6}, "x" * 2000 + " ..."),
        ({"unreadable": {"smell": 1}}, "unreadable values of smell, a modality that the site does not have"),
        ({"losses": {"a\u202eb": 0.0}}, "losses"),
        ({"losses": {"a\x9bb": 0.0}}, "losses"),
        ({"error": "red \x1b[31m\u202e\x9b"}, "red ·[31m··"),
    ],
)
def test_a_malformed_reply_is_refused_with_its_reason(said: dict[str, Any], reason: str) -> None:
    made = strategy("fedcmi", HELD[:2], federation__min_replies=1, data__clients=2)
    start = params(0)
    messages = list(made.configure_train(1, wire.pack(start), ConfigRecord(), NoGrid()))  # type: ignore[arg-type]
    body = {"site": "site-1", "round": 1, "num_examples": 3, "losses": {}, "validation": {}, "unreadable": {},
            "seconds": {}} | said  # fmt: skip
    bad = reply(messages[1], made, select(start, HELD[1]), 3)
    bad.content["body"] = ConfigRecord({"json": json.dumps(body)})
    made.aggregate_train(1, [reply(messages[0], made, select(start, HELD[0]), 3), bad])
    assert reason in made.report.failed["site-1"]
    assert set(made.report.clients) == {"site-0"}


@pytest.mark.parametrize(
    "losses", [{"x" * 10**6: 0.0}, {f"\x1b{'y' * 10**5}": 0.0}, dict.fromkeys(map(str, range(9**5)), 0)]
)
def test_what_is_said_of_a_bad_reply_is_short_however_long_the_reply(losses: dict[str, float]) -> None:
    made = strategy("fedcmi", HELD[:2], federation__min_replies=1, data__clients=2)
    start = params(0)
    messages = list(made.configure_train(1, wire.pack(start), ConfigRecord(), NoGrid()))  # type: ignore[arg-type]
    bad = reply(messages[1], made, select(start, HELD[1]), 3)
    body = {"round": 1, "num_examples": 3, "losses": losses}
    bad.content["body"] = ConfigRecord({"json": json.dumps(body)})
    made.aggregate_train(1, [reply(messages[0], made, select(start, HELD[0]), 3), bad])
    said = made.report.failed["site-1"]
    assert len(said) < 500 and said.isprintable()


@pytest.mark.parametrize(("asked", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (6, 4), (10, 7)])
def test_a_round_does_without_a_third_of_its_sites(asked: int, needed: int) -> None:
    made = strategy("fedavg", [{"audio"}] * max(2, asked), data__clients=max(2, asked), federation__sample=asked)
    assert made.needed == needed


def test_a_site_that_says_it_has_more_examples_than_all_others_does_not_decide_alone() -> None:
    start, held = params(0), [{"audio"}] * 5
    updates = [select(params(i + 1), one) for i, one in enumerate(held)]
    means = {}
    for cap in (10, None):
        made = strategy("fedavg", held, data__clients=5, federation__max_weight=cap, federation__max_update_ratio=None)
        for node, site in list(made.sites.items()):
            made.sites[node] = replace(site, num_examples=10**12 if site.name == "site-4" else 20)
        means[cap] = one_round(made, start, updates, [20, 20, 20, 20, 10**12], list(range(5)))["fusion.weight"]
    weights = torch.tensor([20.0, 20, 20, 20, 200])
    whole = torch.stack([update["fusion.weight"] for update in updates])
    assert torch.allclose(means[10], (weights[:, None, None] * whole).sum(0) / weights.sum(), atol=1e-6)
    assert torch.allclose(means[None], whole[4], atol=1e-6)


def test_an_update_that_is_out_of_all_proportion_is_refused_though_it_is_finite() -> None:
    start = params(0)
    updates = [select(start, held) for held in HELD]
    for size in (3e38, 1e10):
        made = strategy("fedavg", HELD, data__clients=3)
        spoiled = [updates[0], {key: torch.full_like(value, size) for key, value in updates[1].items()}, updates[2]]
        got = one_round(made, start, spoiled, [1, 1, 1], [0, 1, 2])
        assert "max_update_ratio" in made.report.failed["site-1"]
        assert all(torch.allclose(got[key], start[key]) for key in start)
    # Once it is known how far updates go, one may go as far as the usual one, however small the model is.
    made = strategy("fedavg", HELD, data__clients=3)
    made.usual_norm = 1e6
    large = [{key: value + 1e5 for key, value in update.items()} for update in updates]
    one_round(made, start, large, [1, 1, 1], [0, 1, 2])
    assert not made.report.failed and made.usual_norm == pytest.approx(1e5 * 10**0.5, rel=1)


def test_a_client_that_does_not_reply_is_named() -> None:
    made = strategy("fedcmi", HELD, federation__min_replies=1, data__clients=3)
    updates = [select(params(i + 1), held) for i, held in enumerate(HELD)]
    got = one_round(made, params(0), updates, [5, 7, 11], [1])
    assert made.report.failed == {"site-0": "no reply", "site-2": "no reply"}
    assert torch.allclose(got["fusion.weight"], updates[1]["fusion.weight"])


def test_fedcmi_is_the_mean_over_the_holders_of_each_block() -> None:
    updates = [select(params(i + 1), held) for i, held in enumerate(HELD)]
    got = one_round(strategy("fedcmi", HELD), params(0), updates, [5, 7, 11], [0, 1, 2])
    u = [{key: value.double().numpy() for key, value in update.items()} for update in updates]
    np.testing.assert_allclose(
        got["branches.image.w"],
        (5 * u[0]["branches.image.w"] + 11 * u[2]["branches.image.w"]) / 16,
        rtol=1e-6,
    )
    for key in ("branches.audio.w", "fusion.weight", "fusion.bias"):
        np.testing.assert_allclose(got[key], (5 * u[0][key] + 7 * u[1][key] + 11 * u[2][key]) / 23, rtol=1e-6)


def test_fedcmi_keeps_the_block_of_a_modality_that_nobody_holds() -> None:
    start, update = params(0), select(params(1), {"audio"})
    got = one_round(strategy("fedcmi", [{"audio"}], data__clients=1), start, [update], [3], [0])
    assert torch.equal(got["branches.image.w"], start["branches.image.w"])


def test_fedavg_equals_flowers_own_on_whole_models() -> None:
    start = params(0)
    updates = [select(params(i + 1), held) for i, held in enumerate(HELD)]
    got = one_round(strategy("fedavg", HELD), start, updates, [5, 7, 11], [0, 1, 2])
    from flwr.app import ArrayRecord, MetricRecord, RecordDict

    messages = []
    for update, examples in zip(updates, [5, 7, 11], strict=True):
        whole = start | update  # a stock client returns what it could not train as it got it
        content = RecordDict({"arrays": ArrayRecord({k: v.reshape(-1) for k, v in whole.items()}),  # type: ignore[arg-type]
                              "metrics": MetricRecord({"num-examples": examples})})  # fmt: skip
        asked = Message(RecordDict(), dst_node_id=1, message_type="train")
        messages.append(Message(content, reply_to=asked))
    stock, _ = StockFedAvg().aggregate_train(1, messages)
    assert stock is not None
    for key, value in stock.to_torch_state_dict().items():
        torch.testing.assert_close(got[key].reshape(-1), value, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(1, 10**6)), min_size=1, max_size=6))
def test_a_block_mean_lies_between_its_updates(clients: list[tuple[int, int]]) -> None:
    mean = BlockMean()
    for seed, examples in clients:
        mean.add(params(seed), {"audio": examples, "image": examples, "shared": examples})
    got = mean.result(params(0))
    for key, value in got.items():
        stack = torch.stack([params(seed)[key] for seed, _ in clients])
        assert (value >= stack.amin(0) - 1e-5).all() and (value <= stack.amax(0) + 1e-5).all()
