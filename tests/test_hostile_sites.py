"""Hostile sites against the strategy cka with compared changes, by loops and through whole rounds."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, experiment
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from client.site import Site
from common.blocks import Params
from common.errors import ConfigError
from common.split.make import make_shards
from common.types import Update
from deploy.engines.in_process import InProcessGrid, claim_identity
from deploy.study.bench.attacks import Attack, Hostile, HostileSite, with_hostile
from deploy.study.bench.runner import Runner
from deploy.study.bench.suite import jobs, read_suite
from deploy.study.bench.trial import perform, prepare
from server.aggregation.block_mean import BlockMean
from server.aggregation.similarity import change_similarity, client_scores, client_weights, linear_cka
from server.record.run_folder import RunFolder, read_rounds
from server.rounds.federation import Federation
from server.strategies.cka import CKA, CKAStrategy

SMOKE = ROOT / "configs" / "bench" / "smoke.yaml"
OURS = {"name": "cka", "compare": "change", "importance": "median", "representation": "logits", "sharpness": 2.0}
BOTH, AUDIO = frozenset({"audio", "image"}), frozenset({"audio"})
SHAPES = {"branches.audio.w": (3, 2), "branches.image.w": (4,), "fusion.weight": (2, 3), "fusion.bias": ()}


def changes(models: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(models, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 1


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    product = sum(float(x) * float(y) for x, y in zip(one.ravel(), other.ravel(), strict=True))
    lengths = [math.sqrt(sum(float(x) ** 2 for x in z.ravel())) for z in (one, other)]
    return product / (lengths[0] * lengths[1])


def test_similarity_of_changes_by_loops() -> None:
    given_changes = changes()
    given_changes[3] = -given_changes[0] + 0.1 * given_changes[3]
    got = change_similarity(given_changes)
    for i in range(5):
        for j in range(5):
            expected = 1.0 if i == j else max(0.0, cosine(given_changes[i].numpy(), given_changes[j].numpy()))
            assert float(got[i, j]) == pytest.approx(expected, rel=1e-10, abs=1e-12)
    assert float(got[0, 3]) == 0 < float(got[0, 1])
    assert torch.equal(got, got.T)


def test_only_changes_have_a_sign() -> None:
    pair = torch.stack([changes()[0], -changes()[0]])
    assert linear_cka(pair).tolist() == [[1, pytest.approx(1)], [pytest.approx(1), 1]]
    assert change_similarity(pair).tolist() == [[1, 0], [0, 1]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-300, 300), min_size=5, max_size=5))
def test_the_size_of_a_change_makes_no_difference(powers: list[float]) -> None:
    scaled = changes() * torch.tensor([10.0**power for power in powers], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(change_similarity(scaled), change_similarity(changes()), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf, -math.inf])
def test_no_change_and_changes_that_are_not_finite_are_like_no_other(bad: float) -> None:
    given_changes = changes()
    given_changes[2] = 0
    given_changes[2, 1, 1] = bad
    got = change_similarity(given_changes)
    assert got[2].tolist() == got[:, 2].tolist() == [0, 0, 1, 0, 0]
    rest = torch.tensor([0, 1, 3, 4])
    torch.testing.assert_close(got[rest][:, rest], change_similarity(changes()[rest]))


def reached_by_half(values: list[float]) -> float:
    """The largest of the values that at least half of them reach."""
    return max(value for value in values if 2 * sum(other >= value for other in values) >= len(values))


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 9])
def test_the_score_median_by_loops(count: int) -> None:
    similarity = change_similarity(changes(count, seed=count))
    got = client_scores(similarity, [1] * count, "median")
    for k in range(count):
        others = [float(similarity[k, j]) for j in range(count) if j != k]
        assert float(got[k]) == pytest.approx(reached_by_half(others))


@pytest.mark.parametrize("count", [3, 4, 5, 8, 9])
def test_a_minority_that_supports_itself_has_the_score_0_and_cannot_take_the_score_of_others(count: int) -> None:
    hostile = (count - 1) // 2
    similarity = torch.full((count, count), 0.3, dtype=torch.float64)
    similarity[:hostile, hostile:] = similarity[hostile:, :hostile] = 0.0
    similarity[:hostile, :hostile] = 1.0
    scores = client_scores(similarity.fill_diagonal_(1), [1] * count, "median").tolist()
    assert scores == [0.0] * hostile + [0.3] * (count - hostile)


def test_weights_are_powers_of_scores() -> None:
    scores = torch.tensor([0.4, 0.1, 0.0, 0.2], dtype=torch.float64)
    for power in (0.5, 1.0, 2.0, 7.0):
        raised = [score**power for score in (0.4, 0.1, 0.0, 0.2)]
        assert client_weights(scores, power).tolist() == pytest.approx([one / sum(raised) for one in raised])
    assert client_weights(scores * 1e-200, 100.0).tolist() == pytest.approx([1, 0, 0, 0], abs=1e-29)
    assert client_weights(torch.zeros(4, dtype=torch.float64), 2.0).tolist() == [0.25] * 4


# The mean, with a probe set whose representation is the change of all parameters ----------------------------------


class PlainProbe:
    """Represents a model by its parameters."""

    classes = ("x", "y")

    def represent(self, params: Params, kind: str) -> Tensor:
        return torch.cat([params[name].reshape(-1) for name in SHAPES]).reshape(1, -1)


def params(seed: int) -> Params:
    drawn = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=drawn) for name, shape in SHAPES.items()}


def update(number: int, held: frozenset[str], change: Params) -> Update:
    start = params(0)
    sent = {name: start[name] + change[name] for name in SHAPES if name != "branches.image.w" or "image" in held}
    return Update(f"site-{number}", held, sent, 5)


def combine(updates: list[Update], **options: Any) -> tuple[Params, dict[str, Any]]:
    claim_identity()
    chosen = CKA(compare="change", importance="median", sharpness=2.0, **options)
    strategy, mean = CKAStrategy(experiment(), PlainProbe(), chosen), BlockMean()  # type: ignore[arg-type]
    for one in updates:
        strategy.contribute(mean, one, params(0))
    figures = strategy.finish(mean)
    return mean.result(params(0)), figures


def agreeing(number: int, size: float = 1.0) -> Params:
    """A change that is similar to that of other numbers."""
    own, common = params(number), params(99)
    return {name: size * (common[name] + 0.3 * own[name]) for name in SHAPES}


def test_a_block_is_the_mean_of_bounded_changes_by_loops() -> None:
    sizes = [1.0, 0.5, 30.0, 1.2, 0.8]
    held = [BOTH, AUDIO, BOTH, AUDIO, BOTH]
    updates = [update(i, held[i], agreeing(i + 1, sizes[i])) for i in range(5)]
    got, figures = combine(updates)
    again, _ = combine(updates[::-1])
    weights = [figures["weights"][f"site-{i}"] for i in range(5)]
    assert sum(weights) == pytest.approx(1)
    start = params(0)
    for names in (["branches.audio.w"], ["branches.image.w"], ["fusion.weight", "fusion.bias"]):
        holders = [i for i in range(5) if names[0] in updates[i].params]
        moved = {i: {name: (updates[i].params[name] - start[name]).double().numpy() for name in names} for i in holders}
        norms = {i: math.sqrt(sum(float((value**2).sum()) for value in moved[i].values())) for i in holders}
        bound = sorted(norms.values())[(len(holders) - 1) // 2]
        for name in names:
            total = sum(weights[i] * min(1.0, bound / norms[i]) * moved[i][name] for i in holders)
            expected = start[name].numpy() + total / sum(weights[i] for i in holders)
            np.testing.assert_allclose(got[name].numpy(), expected, rtol=1e-5, atol=1e-6)
            assert torch.equal(got[name], again[name])


@settings(max_examples=40, deadline=None)
@given(size=st.floats(1e-3, 1e12), sites=st.integers(3, 9), seed=st.integers(100, 999))
def test_a_hostile_minority_of_any_size_moves_the_model_no_further_than_an_honest_site(
    size: float, sites: int, seed: int
) -> None:
    hostile = (sites - 1) // 2
    bad = {name: size * value for name, value in params(seed).items()}
    sent = [bad if i < hostile else agreeing(i + 1) for i in range(sites)]
    got, _ = combine([update(i, BOTH, change) for i, change in enumerate(sent)])
    assert all(value.isfinite().all() for value in got.values())
    length = math.sqrt(sum(float((got[n] - params(0)[n]).double().square().sum()) for n in SHAPES))
    longest = max(math.sqrt(sum(float(v.double().square().sum()) for v in sent[i].values()))
                  for i in range(hostile, sites))  # fmt: skip
    assert length <= longest * 2  # each of the three blocks is bounded by the longest honest one
    flipped = [update(i, BOTH, {n: (-1 if i < hostile else 1) * v for n, v in agreeing(i + 1).items()})
               for i in range(sites)]  # fmt: skip
    assert [combine(flipped)[1]["weights"][f"site-{i}"] for i in range(hostile)] == [0.0] * hostile


def test_one_client_is_taken_as_it_is_and_two_that_contradict_each_other_have_equal_weights(
    caplog: pytest.LogCaptureFixture,
) -> None:
    alone, figures = combine([update(1, BOTH, agreeing(1))])
    assert figures["weights"] == {"site-1": 1.0}
    for name, value in update(1, BOTH, agreeing(1)).params.items():
        torch.testing.assert_close(alone[name], value)
    assert not caplog.records
    opposite = {name: -value for name, value in agreeing(1).items()}
    got, figures = combine([update(1, BOTH, agreeing(1)), update(2, BOTH, opposite)])
    assert figures["weights"] == {"site-1": 0.5, "site-2": 0.5}
    assert all(torch.allclose(got[name], params(0)[name], atol=1e-6) for name in SHAPES)
    assert "no site is similar to half of the others" in caplog.text


def test_a_block_that_only_sites_without_weight_hold_keeps_its_values() -> None:
    opposite = {name: -value for name, value in agreeing(1).items()}
    sent = [update(0, BOTH, opposite), *(update(i, AUDIO, agreeing(i)) for i in (1, 2, 3))]
    got, figures = combine(sent)
    assert figures["weights"]["site-0"] == 0
    assert torch.equal(got["branches.image.w"], params(0)["branches.image.w"])
    assert not torch.equal(got["branches.audio.w"], params(0)["branches.audio.w"])


# Whole rounds -----------------------------------------------------------------------------------------------------

SIX: dict[str, Any] = {"data__clients": 6, "data__limit": 480, "data__missing": {}}


@pytest.fixture(scope="module")
def six_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("six") / "shards"
    make_shards(experiment(**SIX), folder)
    return folder


def weights_by_round(shards: Path, run: Path, hostile: Hostile, strategy: dict[str, Any]) -> list[dict[str, float]]:
    chosen = experiment(strategy=strategy, federation__max_update_ratio=None, train__epochs=4, **SIX)
    sites = with_hostile([Site(shards / f"client-{i}") for i in range(6)], hostile)
    Federation(chosen, InProcessGrid(sites), None, RunFolder(run, chosen), shards / "test").run()
    return [line["aggregation"]["weights"] for line in read_rounds(run)[1:]]


@pytest.mark.parametrize(("attack", "share"), [("random-weights", 0.1), ("sign-flip", 0.0), ("shuffled-labels", 1.0)])
def test_hostile_sites_have_little_weight(attack: Attack, share: float, six_shards: Path, tmp_path: Path) -> None:
    rounds = weights_by_round(six_shards, tmp_path, Hostile(sites=2, attack=attack), OURS)
    assert len(rounds) == 2
    for weights in rounds:
        honest = [weights[f"client-{i}"] for i in (2, 3, 4, 5)]
        assert max(weights["client-0"], weights["client-1"]) <= share * min(honest)


def test_hostile_sites_return_what_their_attack_names(six_shards: Path, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Watched(HostileSite):
        def train_round(self, request: Any, message: Any) -> Any:
            said, trained = super().train_round(request, message)
            seen[self._attack] = {name: value.clone() for name, value in trained.now.items()}
            seen["received"] = trained.received
            return said, trained

    changed = {**SIX, "data__clients": 2, "federation__rounds": 1, "federation__max_update_ratio": None}
    attacks: list[Attack] = ["absent", "shuffled-labels", "sign-flip", "random-weights"]
    for attack in attacks:
        chosen = experiment(**changed)
        sites = [Watched(Site(six_shards / "client-0"), attack), Site(six_shards / "client-1")]
        Federation(chosen, InProcessGrid(sites), None, RunFolder(tmp_path / attack, chosen)).run()
    honest = seen["absent"]
    for name, start in seen["received"].items():
        torch.testing.assert_close(seen["sign-flip"][name] - start, start - honest[name])
    assert any(not torch.equal(seen["shuffled-labels"][name], honest[name]) for name in honest)
    drawn = torch.cat([value.reshape(-1) for value in seen["random-weights"].values()])
    assert abs(float(drawn.mean())) < 0.1 and abs(float(drawn.std()) - 1) < 0.1


def test_absent_sites_do_not_take_part_and_somebody_must_be_honest(six_shards: Path) -> None:
    sites = [Site(six_shards / f"client-{i}") for i in range(6)]
    assert with_hostile(sites, None) == sites
    assert with_hostile(sites, Hostile(sites=2, attack="absent")) == sites[2:]
    assert with_hostile(sites, Hostile(sites=2, attack="sign-flip"))[2:] == sites[2:]
    with pytest.raises(ConfigError, match="6 sites are hostile, but a federation has 6"):
        with_hostile(sites, Hostile(sites=6, attack="sign-flip"))


def test_a_suite_has_other_results_with_hostile_sites(tmp_path: Path) -> None:
    raw = yaml.safe_load(SMOKE.read_text())
    name = next(iter(raw["settings"]))
    raw["settings"]["attacked"] = {**raw["settings"][name], "hostile": {"sites": 1, "attack": "sign-flip"}}
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(raw))
    suite, before = read_suite(path, {}), read_suite(SMOKE, {})
    found = {}
    for where, given_suite in ((name, before), (name, suite), ("attacked", suite)):
        cell = (where, given_suite.reference)
        (job,) = jobs(given_suite, [cell], [1], {cell: [0.1]})
        digest = Runner(given_suite, tmp_path, 1, lambda *_: None)._file(job).stem.rpartition("-")[2]
        found[where, given_suite is suite] = job.hostile, digest
    assert found[name, True] == found[name, False]
    assert found["attacked", True][0] == Hostile(sites=1, attack="sign-flip")
    assert found[name, True][0] is None
    for wrong in ({"sites": 0, "attack": "sign-flip"}, {"sites": 1, "attack": "sign-flop"}, {"sites": 1}):
        raw["settings"]["attacked"]["hostile"] = wrong
        path.write_text(yaml.safe_dump(raw))
        with pytest.raises(ConfigError, match="hostile"):
            read_suite(path, {})


def test_a_job_runs_with_its_hostile_sites_and_is_judged_by_its_figures_alone(tmp_path: Path) -> None:
    suite = read_suite(SMOKE, {"data.limit": 60, "data.test_limit": 20})
    cell = ("all-multimodal", "fedavg")
    (honest,) = jobs(suite, [cell], [1], {cell: [0.01]})
    attacked = dataclasses.replace(honest, hostile=Hostile(sites=1, attack="random-weights"))
    prepare(honest, [], tmp_path)
    first, second = (perform(job, tmp_path) for job in (honest, attacked))
    assert first["loss"] < math.log(first["classes"]) < second["loss"]
    assert first["status"] == second["status"] == "completed"
    assert first["rounds"][0]["test"] == second["rounds"][0]["test"]
    assert first["rounds"][-1]["test"] != second["rounds"][-1]["test"]
