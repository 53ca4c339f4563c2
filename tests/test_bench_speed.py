"""The measurements of `fedmosaic bench speed` that need no SuperLink, in a size whose times mean nothing."""

from pathlib import Path

import pytest
from test_cli import call
from torch.optim.optimizer import register_optimizer_step_post_hook

from common.blocks import get_params
from common.build import build_model
from common.types import CPU
from deploy.study.bench.site_memory import command as site_memory
from deploy.study.bench.site_memory.examples import write_shard
from deploy.study.bench.speed.bytes_sent import Bytes, value_bytes
from deploy.study.bench.speed.cka import CKA
from deploy.study.bench.speed.clients import Clients
from deploy.study.bench.speed.command import MEASUREMENTS, measure, table
from deploy.study.bench.speed.features import Features
from deploy.study.bench.speed.measurement import Goal, Measurement, Sample, row
from deploy.study.bench.speed.memory import Memory
from deploy.study.bench.speed.rounds import EmptyRound, LargeRound
from deploy.study.bench.training.command import run as bench_train
from deploy.study.bench.training.process import Stopwatch, ours, plain
from deploy.study.bench.training.workloads import workloads

SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "kind", [CKA, pytest.param(Clients, marks=SLOW), Bytes, Features, pytest.param(Memory, marks=SLOW)]
)
def test_a_small_measurement_gives_a_row(kind: type[Measurement]) -> None:
    made = measure(kind(small=True), 1)
    assert made.name == kind.name
    assert made.repeats == 1
    assert made.ours > 0 or kind is Memory
    assert table([made]).row_count == 1


def test_an_audio_only_client_sends_exactly_its_share_of_blocks() -> None:
    made = measure(Bytes(), 1)
    assert made.met
    assert 0.1 < made.ours / made.stock < 0.9


def test_a_row_holds_medians_and_the_spread_of_the_ratio() -> None:
    samples = [Sample(10, 1, 10, 4), Sample(30, 1, 30, 5), Sample(22, 1, 22, 9)]
    made = row(CKA(), samples)
    assert (made.stock, made.ours, made.bare, made.ratio, made.spread, made.met) == (22, 1, 5, 22, 20, True)


def test_goals() -> None:
    assert Goal("at most", 0.5).met(0.5)
    assert not Goal("at most", 0.5).met(0.51)
    assert Goal("at least", 20).met(20)
    assert not Goal("at least", 20).met(19.9)
    assert Goal("exactly", 1).met(1)
    assert not Goal("exactly", 1).met(1.0001)


def test_an_unknown_measurement_is_a_mistake_that_names_the_known_ones(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert call("bench", "speed", "--only", "rounds") == 2
    said = capsys.readouterr().err
    assert all(kind.name in said for kind in MEASUREMENTS)
    assert call("bench", "speed", "--only", "bytes", "--json", tmp_path / "rows.json") == 0
    assert (tmp_path / "rows.json").read_text().startswith("[")


def test_the_large_model_has_the_size_that_is_said() -> None:
    params = get_params(build_model(LargeRound().experiment(1), 10))
    assert len(params) == pytest.approx(LargeRound.tensors, rel=0.02)
    assert value_bytes(params) == pytest.approx(4 * LargeRound.values, rel=0.02)
    assert len(EmptyRound().experiment(2).modalities) == 2


@pytest.mark.parametrize("name", ["resnet18", "spectrogram", "features"])
def test_both_loops_of_a_training_start_from_the_same_model_and_take_the_same_steps(name: str) -> None:
    chosen = workloads(4, 2, "float32", deterministic=True, small=True)[name]
    for loop in (ours, plain):
        batch = chosen.batch()
        before = get_params(chosen.model())
        assert before.keys() and len(batch) == chosen.examples
        watch = Stopwatch(-(-chosen.examples // 4), CPU)
        hook = register_optimizer_step_post_hook(watch.step)
        loop(chosen, batch, CPU)
        hook.remove()
        assert watch.count == 2 * watch.steps
        assert 0 < watch.first < watch.epochs[1] < watch.epochs[2]


@SLOW
def test_a_small_training_gives_a_row_with_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    options = {"device": "cpu", "precision": "bfloat16", "batch_size": 4, "small": True}
    (made,) = bench_train(["features"], 1, None, options)
    assert made.rate > 0 and made.ratio > 0 and made.first > 0
    shown = capsys.readouterr().out.split()
    assert {"ours", "plain", f"{made.rate:.0f}", f"{made.ratio:.3f}"} <= set(shown)


@SLOW
def test_the_memory_of_a_site_does_not_grow_with_its_examples(tmp_path: Path) -> None:
    rows = []
    for count in (600, 3000):
        write_shard(tmp_path / str(count), count)
        rows += [site_memory.measure(way, count, tmp_path / str(count)) for way in site_memory.WAYS]
    small, large = {row.way: row for row in rows[:2]}, {row.way: row for row in rows[2:]}
    for way in site_memory.WAYS:
        assert large[way].private < small[way].private + 50
        assert large[way].whole < small[way].whole + 100
    assert site_memory.table(rows).row_count == 4
