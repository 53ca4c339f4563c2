"""CKA and what it makes of clients, against the formula in feature space and through whole rounds."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import experiment
from flwr.app import Message
from torch import Tensor

from client.site import Site
from common.blocks import block_of, get_params, select, set_params
from common.build import build_model
from common.config.component import build
from common.config.experiment import Experiment
from common.errors import ConfigError, ShardError
from common.exchange import wire
from common.split.make import make_shards
from common.types import Update
from deploy.engines.in_process import InProcessGrid, claim_identity
from server.aggregation.block_mean import BlockMean
from server.aggregation.similarity import client_scores, client_weights, linear_cka
from server.own_data.probe import ProbeSet
from server.record.run_folder import RunFolder, read_rounds
from server.rounds.federation import Federation
from server.strategies.cka import CKA, CKAStrategy

FOUR: dict[str, Any] = {"data__clients": 4, "data__limit": 240, "data__missing": {"incomplete": 0.2}}
JOINT = {"name": "joint", "width": 8, "depth": 1}


def stack(models: int = 4, probes: int = 9, width: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(models, probes, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def in_feature_space(x: Tensor, y: Tensor) -> float:
    """||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F) of unit rows and centred columns: no Gram matrix of the probes."""

    def prepared(z: Tensor) -> Tensor:
        z = torch.stack([row / row.square().sum().sqrt() for row in z])
        return z - z.mean(0)

    x, y = prepared(x), prepared(y)
    return float((y.T @ x).square().sum() / ((x.T @ x).square().sum() * (y.T @ y).square().sum()).sqrt())


def test_cka_equals_the_formula_in_feature_space() -> None:
    given = stack()
    got = linear_cka(given)
    for i in range(4):
        for j in range(4):
            assert float(got[i, j]) == pytest.approx(in_feature_space(given[i], given[j]), rel=1e-10)
    assert torch.equal(got, got.T)


@pytest.mark.parametrize("height", [1, 2, 5, 8, 9, 100])
def test_blocks_of_any_height_give_the_same(height: int) -> None:
    given = stack(4, 9, 5)
    given[2, 3, 1] = torch.nan
    whole = linear_cka(given)
    blocks = linear_cka(given, block_bytes=height * 4 * 9 * 8)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-12)
    assert float(blocks[0, 1]) == pytest.approx(in_feature_space(given[0], given[1]), rel=1e-10)
    torch.testing.assert_close(linear_cka(given, block_bytes=0), whole, rtol=0, atol=1e-12)


def test_rotation_and_scale_of_a_representation_change_nothing() -> None:
    given = stack()
    rotation, _ = torch.linalg.qr(stack(1, 5, 5, seed=1)[0])
    torch.testing.assert_close(linear_cka(torch.cat([given, given[:1] @ rotation]))[4, :4], linear_cka(given)[0])
    torch.testing.assert_close(linear_cka(torch.cat([given, given[:1] * 37]))[4, :4], linear_cka(given)[0])
    bent = given[:1] * torch.tensor([1.0, 5, 1, 1, 1])  # not isotropic
    assert float(linear_cka(torch.cat([given, bent]))[4, 0]) < 0.99


def test_models_that_tell_no_probe_from_another_or_are_not_finite_are_like_no_other() -> None:
    constant = torch.randn(1, 1, 5, dtype=torch.float64).expand(1, 9, 5)
    broken = stack(1, seed=3)
    broken[0, 2, 1] = torch.inf
    for odd in (constant, torch.zeros(1, 9, 5), broken, constant.float().double() * 1e30):
        got = linear_cka(torch.cat([stack(2), odd]))
        assert got.isfinite().all()
        assert got[2].tolist() == pytest.approx([0, 0, 1], abs=1e-9)
    alone = linear_cka(torch.zeros(1, 9, 5))
    assert alone.tolist() == [[1.0]]


@pytest.mark.parametrize("importance", ["degree", "pagerank", "degree-x-examples", "uniform", "median"])
def test_weights_follow_the_clients_and_add_up_to_one(importance: Any) -> None:
    similarity, examples = linear_cka(stack(5)), [3, 9, 1, 4, 4]
    got = client_weights(client_scores(similarity, examples, importance))
    assert float(got.sum()) == pytest.approx(1)
    order = torch.tensor([3, 0, 4, 2, 1])
    turned = client_weights(client_scores(similarity[order][:, order], [examples[i] for i in order], importance))
    torch.testing.assert_close(turned, got[order])
    for count in (1, 3):
        lonely = client_weights(client_scores(torch.eye(count, dtype=torch.float64), [2] * count, importance))
        torch.testing.assert_close(lonely, torch.full((count,), 1 / count, dtype=torch.float64))


def weights(similarity: Tensor, examples: list[int], importance: Any) -> list[float]:
    return client_weights(client_scores(similarity, examples, importance)).tolist()


def test_weights_by_hand() -> None:
    similarity = torch.tensor([[1.0, 0.8, 0.2], [0.8, 1.0, 0.0], [0.2, 0.0, 1.0]], dtype=torch.float64)
    degree = [2.0 / 5, 1.8 / 5, 1.2 / 5]
    assert weights(similarity, [1, 1, 1], "degree") == pytest.approx(degree)
    weighed = [2.0 * 1 / 20, 1.8 * 5 / 20, 1.2 * 7.5 / 20]
    assert weights(similarity, [2, 10, 15], "degree-x-examples") == pytest.approx(weighed)
    # The stationary point of r = 0.15 / 3 + 0.85 P^T r, P the rows of A without its diagonal, made to sum to 1.
    steps = torch.tensor([[0, 0.8, 0.2], [1, 0, 0], [1, 0, 0]], dtype=torch.float64)
    ranks = torch.linalg.solve(torch.eye(3).double() - 0.85 * steps.T, torch.full((3,), 0.05).double())
    assert weights(similarity, [1, 1, 1], "pagerank") == pytest.approx(ranks.tolist(), rel=1e-6)


def strategy(chosen: Experiment, probe: Path, importance: Any = "degree") -> CKAStrategy:
    claim_identity()
    return CKA(importance=importance).build(chosen, probe)


def combine(made: CKAStrategy, updates: list[Update], received: dict[str, Tensor]) -> tuple[Any, dict[str, Any]]:
    mean = BlockMean()
    for update in updates:
        made.contribute(mean, update, received)
    figures = made.finish(mean)
    return mean.result(received), figures


@pytest.mark.parametrize("method", ["fedavg", "fedcmi", "co-attention"])
def test_each_block_is_the_weighted_mean_of_its_holders_with_every_model(method: str, tiny_shards: Path) -> None:
    chosen = experiment(method=method)
    if method == "co-attention":
        chosen = experiment(method=method, model__architecture=JOINT)
    received = get_params(build_model(chosen, 10))
    both, audio = frozenset({"audio", "image"}), frozenset({"audio"})
    updates = []
    for seed, held in ((11, both), (12, audio), (13, both)):
        raw = get_params(build_model(chosen.model_copy(update={"seed": seed}), 10))
        updates.append(Update(f"site-{seed}", held, select(raw, held), 5))
    got, figures = combine(strategy(chosen, tiny_shards / "test"), updates, received)
    again, _ = combine(strategy(chosen, tiny_shards / "test"), updates[::-1], received)

    probe = ProbeSet(chosen, tiny_shards / "test")
    seen = torch.stack([probe.represent({**received, **update.params}) for update in updates])
    w = linear_cka(seen).sum(1) / linear_cka(seen).sum()
    assert list(figures["weights"].values()) == pytest.approx(w.tolist())
    assert figures["similarity"]["sites"] == ["site-11", "site-12", "site-13"]
    for name in received:
        holders = [0, 2] if block_of(name) == "image" else [0, 1, 2]
        total = sum(w[k] * updates[k].params[name].double() for k in holders) / sum(w[k] for k in holders)
        torch.testing.assert_close(got[name].double(), total, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got[name], again[name], rtol=1e-5, atol=1e-6)


def test_the_vectors_of_the_modalities_and_the_logits_may_be_compared_too(tiny_shards: Path) -> None:
    chosen = experiment(method="co-attention", model__architecture=JOINT)
    models = [get_params(build_model(chosen.model_copy(update={"seed": seed}), 10)) for seed in (11, 12, 13)]
    updates = [Update(f"site-{i}", frozenset({"audio", "image"}), params, 5) for i, params in enumerate(models)]
    examples, model, matrices = ProbeSet(chosen, tiny_shards / "test").examples, build_model(chosen, 10).eval(), []
    ways = {"joint": model.represent, "all": model.represent_all, "logits": model.predict}
    for kind, way in ways.items():
        made = build("strategy", {"name": "cka", "representation": kind}).build(chosen, tiny_shards / "test")
        matrices.append(combine(made, updates, models[0])[1]["similarity"]["matrix"])
        seen = []
        for params in models:
            set_params(model, params)
            seen.append(way(examples).detach())
        assert torch.tensor(matrices[-1]) == pytest.approx(linear_cka(torch.stack(seen)).float(), rel=1e-4)
    assert matrices[0] != matrices[1] != matrices[2]


def test_identical_updates_aggregate_to_themselves(tiny_shards: Path) -> None:
    chosen = experiment(method="co-attention", model__architecture=JOINT)
    received = get_params(build_model(chosen, 10))
    trained = get_params(build_model(chosen.model_copy(update={"seed": 4}), 10))
    updates = [Update(f"site-{i}", frozenset({"audio", "image"}), trained, 5 + i) for i in range(3)]
    for importance in ("degree", "pagerank", "degree-x-examples"):
        got, _ = combine(strategy(chosen, tiny_shards / "test", importance), updates, received)
        assert all(torch.allclose(got[name], value, rtol=1e-6) for name, value in trained.items())


def test_without_a_probe_set_it_is_refused_with_the_remedy(tiny_shards: Path, tmp_path: Path) -> None:
    chosen = experiment(strategy="cka")
    with pytest.raises(ConfigError, match="make one with `fedmosaic probe`"):
        build("strategy", {"name": "cka"}).build(chosen, None)
    with pytest.raises(ConfigError, match="probe shard"):
        Federation(chosen, InProcessGrid([Site(tiny_shards / "client-0")]), None, RunFolder(tmp_path, chosen))
    with pytest.raises(ShardError, match="nowhere"):
        build("strategy", {"name": "cka"}).build(chosen, tmp_path / "nowhere")


def test_a_probe_set_of_other_classes_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_shards / "test", tmp_path / "probe")
    info = json.loads((tmp_path / "probe" / "shard.json").read_text())
    (tmp_path / "probe" / "shard.json").write_text(json.dumps(info | {"classes": info["classes"][::-1]}))
    chosen = experiment(strategy="cka", federation__min_replies=1)
    grid = InProcessGrid([Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1")])
    federation = Federation(chosen, grid, None, RunFolder(tmp_path / "run", chosen), tmp_path / "probe")
    with pytest.raises(ShardError, match="its classes differ from the federation's"):
        federation.run()


@pytest.fixture(scope="module")
def four_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four") / "shards"
    make_shards(experiment(**FOUR), folder)
    return folder


def random_from_client_2(node: int, reply: Message) -> Message:
    if node == 12 and "params" in reply.content.array_records:
        rng = torch.Generator().manual_seed(5)
        sent = wire.unpack(reply.content.array_records["params"])
        reply.content["params"] = wire.pack({name: torch.randn(v.shape, generator=rng) for name, v in sent.items()})
    return reply


@pytest.mark.parametrize("importance", ["degree", "pagerank"])
@pytest.mark.parametrize("method", ["fedavg", "fedmvp"])
def test_a_client_with_random_weights_counts_least(
    method: str, importance: str, four_shards: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"model__architecture": {**JOINT, "width": 16}} if method == "fedmvp" else {}
    chosen = experiment(
        method=method,
        strategy={"name": "cka", "importance": importance},
        train__epochs=2,
        federation__max_update_ratio=None,  # or random weights would not be let in at all
        **FOUR,
        **changes,
    )
    sites = [Site(four_shards / f"client-{i}") for i in range(4)]
    run = RunFolder(tmp_path / "run", chosen)
    grid = InProcessGrid(sites, random_from_client_2)
    Federation(chosen, grid, None, run, four_shards / "test").run()
    first, second = (line["aggregation"]["weights"] for line in read_rounds(tmp_path / "run")[1:])
    for weights in (first, second):
        assert min(weights, key=weights.__getitem__) == "client-2"
        assert sum(weights.values()) == pytest.approx(1)
    assert read_rounds(tmp_path / "run")[0]["aggregation"] == {}
