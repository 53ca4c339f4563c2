"""Benchmarks: the smoke suite through the command line, resuming, statistics by hand."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, experiment, make_pictures
from running import running
from test_cli import call

from client.site import Site
from common.encoders.image import ImageEncoder
from common.errors import ConfigError
from common.models.late_fusion import LateFusionModel
from common.types import Batch
from deploy.cli import main
from deploy.study.bench import command
from deploy.study.bench.arrangements import PooledSite, federations
from deploy.study.bench.probe import probe
from deploy.study.bench.runner import Runner, best_value
from deploy.study.bench.statistics import COSTS, Summary, chosen_round, difference, measure, summarise
from deploy.study.bench.suite import jobs, read_suite
from deploy.study.bench.trial import Figures, perform, prepare

SMOKE = ROOT / "configs" / "bench" / "smoke.yaml"


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished smoke benchmark."""
    work = tmp_path_factory.mktemp("bench") / "smoke"
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(SMOKE), "--workers", "1", "--work", str(work)])
    assert ended.value.code == 0
    return work


@pytest.mark.slow
def test_a_benchmark_leaves_a_table_for_each_setting(smoke: Path) -> None:
    suite = read_suite(SMOKE, {})
    for setting in suite.settings:
        content = json.loads((smoke / f"smoke-{setting}.json").read_text())
        assert list(content["rows"]) == suite.rows_of(setting)
        fused = content["rows"]["fedavg"]["measures"]["accuracy"]
        assert set(fused["values"]) == {"1", "2"}
        assert fused["mean"] == pytest.approx(sum(fused["values"].values()) / 2)
        table = (smoke / f"smoke-{setting}.md").read_text()
        assert all(suite.methods[name].title in table for name in suite.rows_of(setting))
        assert (smoke / f"smoke-{setting}.png").stat().st_size > 10_000
    rows = json.loads((smoke / "smoke-all-multimodal.json").read_text())["rows"]
    assert "accuracy" not in rows["image"]["measures"] and "accuracy:image" in rows["image"]["measures"]
    ablation, method = rows["fedcmi-no-infiltration"], rows["fedcmi"]
    assert ablation["train.lr"] == method["train.lr"]
    assert method["measures"]["update_bytes"]["mean"] > 1000
    assert "| method | MB per update | training, s | processor, s |" in table


@pytest.mark.slow
def test_the_smoke_version_of_fedmvp_completes_what_its_rows_ask_for(tmp_path: Path) -> None:
    suite = ROOT / "configs" / "bench" / "fedmvp-smoke.yaml"
    with pytest.raises(SystemExit) as ended:
        main(["bench", str(suite), "--workers", "1", "--work", str(tmp_path)])
    assert ended.value.code == 0
    content = json.loads((tmp_path / "fedmvp-smoke-birds.json").read_text())
    assert list(content["rows"]) == ["linear-pairs", "linear-zero", "fedmvp"]
    assert all("accuracy:text" in row["measures"] and "probe:text" not in row["measures"]
               for row in content["rows"].values())  # fmt: skip
    assert "| image alone" not in (tmp_path / "fedmvp-smoke-birds.md").read_text()
    for shards in (tmp_path / "shards").iterdir():
        assert (shards / "probe" / "metadata.jsonl").is_file()
        for client in shards.glob("client-*"):
            assert len(list((client / "completed").iterdir())) == 2
        assert not (shards / "test" / "completed").exists()


@pytest.mark.slow
def test_a_benchmark_takes_up_where_it_stopped(smoke: Path) -> None:
    suite, said = read_suite(SMOKE, {}), []
    lost = next((smoke / "runs" / "half-unimodal").glob("fedcmi-seed2-*.json"))
    before = json.loads(lost.read_text())
    lost.unlink()
    runner = Runner(suite, smoke, 1, lambda done, total, text: said.append(text))
    runner.run(list(suite.settings), suite.seeds)
    assert said[0] == "shards ready"
    assert len(said) == 2 and "half-unimodal  fedcmi  seed 2" in said[1]
    assert steady(json.loads(lost.read_text())) == steady(before)


def steady(figures: Figures) -> Figures:
    """The figures of a run without its times, and without the bytes, because messages contain times as text."""
    timed = {"train_seconds", "bytes_up"}
    rounds = [{name: value for name, value in line.items() if name not in timed} for line in figures["rounds"]]
    return figures | {"seconds": 0, "cpu_seconds": 0, "commit": "", "rounds": rounds}


@pytest.mark.slow
def test_a_killed_benchmark_leaves_no_worker_and_goes_on(smoke: Path, tmp_path: Path) -> None:
    shutil.copytree(smoke, tmp_path / "work")
    shutil.rmtree(tmp_path / "work" / "runs" / "half-unimodal")
    mark = f"BENCH_TEST={tmp_path}"
    arguments = ["bench", str(SMOKE), "--workers", "1", "--work", str(tmp_path / "work")]
    environment = dict([mark.split("=")], **os.environ)
    command = [sys.executable, "-m", "deploy.cli", *arguments]
    with running(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as bench:
        wait_until(lambda: len(marked(mark)) >= 3, 200)  # itself, its worker, the tracker of resources
        bench.kill()
        bench.wait()
        wait_until(lambda: not marked(mark), 200)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0


def marked(mark: str) -> list[str]:
    """The processes whose environment has the mark."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (entry / "environ").read_bytes():
                found.append(entry.name)
    return found


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_run_that_diverges_is_named_and_not_averaged(tmp_path: Path) -> None:
    suite = read_suite(SMOKE, {"data.limit": 60, "data.test_limit": 20})
    cell = ("all-multimodal", "fedcmi")
    (job,) = jobs(suite, [cell], [1], {cell: [1e6]})
    prepare(job, [], tmp_path)
    figures = perform(job, tmp_path)
    assert figures["status"] == "diverged"
    assert "diverged" in figures["reason"] or "guessing" in figures["reason"]
    assert measure(figures, "accuracy") is None
    assert best_value([figures, ran(1, 0.5, value=0.1)]) == 0.1


def ran(seed: int, accuracy: float, value: float = 0.1, received: tuple[float, ...] = (0.0, 0.2, 0.4)) -> Figures:
    """The figures of a made-up run of three rounds and its initial model."""
    lines = [
        {
            "test": {"a+v": {"accuracy": accuracy - 0.1 * (3 - i), "macro_f1": 0.5, "spread": 0.1}},
            "received": {"a+v": r},
        }
        for i, r in enumerate((0.0, *received))
    ]
    return {
        "seed": seed,
        "value": value,
        "status": "completed",
        "complete": "a+v",
        "rounds": lines,
        "probe": {"a": accuracy},
    }


def test_paired_differences_by_hand() -> None:
    ours = [ran(seed, 0.5 + seed / 100) for seed in (1, 2, 3, 4, 5)]
    theirs = [ran(seed, 0.5) for seed in (5, 4, 3, 2, 1, 6)]
    found = difference(ours, theirs, "accuracy")
    # differences 1 to 5 points: mean 3, deviation sqrt(2.5), t(0.975, 4) = 2.7764
    assert found is not None and found.pairs == 5
    assert found.mean == pytest.approx(0.03)
    assert found.high - found.mean == pytest.approx(2.7764 * (2.5 / 5) ** 0.5 / 100, rel=1e-4)
    assert found.mean - found.low == pytest.approx(found.high - found.mean)
    summary = summarise(ours, "probe:a")
    assert summary is not None and summary.deviation == pytest.approx(0.0158114, rel=1e-4)
    assert difference(ours[:1], theirs, "accuracy") is None
    assert summarise(ours, "probe:x") is None


def test_costs_are_those_of_an_update_and_of_all_rounds() -> None:
    run = ran(1, 0.5)
    assert measure(run, "update_bytes") is None  # an older run
    for number, line in enumerate(run["rounds"]):
        line |= {"updates": 2 * (number > 0), "bytes_up": 2000 * number, "train_seconds": 1.5 * number}
    run["cpu_seconds"] = 4.5
    assert [measure(run, name) for name in COSTS] == [2000, 9.0, 4.5]
    assert summarise([run], "cpu_seconds") == Summary(4.5, 0.0, {1: 4.5})


def test_the_round_is_chosen_on_validation_and_never_on_test() -> None:
    # Models 0, 1, 2 were judged when rounds 1, 2, 3 began: 0.1, 0.9, 0.3. Test accuracy rises to the end.
    run = ran(1, 0.8, received=(0.1, 0.9, 0.3))
    assert chosen_round(run) == 1
    assert measure(run, "chosen") == pytest.approx(0.8 - 0.2)
    assert measure(run, "accuracy") == pytest.approx(0.8)


def test_tuning_takes_the_best_on_validation_and_the_smallest_of_equals() -> None:
    assert best_value([ran(1, 0.9, 0.1, (0, 0, 0.5)), ran(1, 0.1, 0.2, (0, 0, 0.7))]) == 0.2
    assert best_value([ran(1, 0.5, 0.3), ran(1, 0.5, 0.2)]) == 0.2


def test_pooled_and_local_sites(tiny_shards: Path) -> None:
    chosen = experiment()
    sites = [Site(tiny_shards / "client-0"), Site(tiny_shards / "client-1")]
    parts = [site.open(chosen).loaded for site in sites]
    pooled = PooledSite(sites).open(chosen).loaded
    assert pooled.ids == parts[0].ids + parts[1].ids
    for m in chosen.modalities:
        assert int(pooled.examples.has(m).sum()) == sum(int(part.examples.has(m).sum()) for part in parts)
    assert [len(group) for group in federations("local", chosen, sites)] == [1, 1]
    assert [len(group) for group in federations("federated", chosen, sites)] == [2]
    image_only = experiment(model__encoders={"image": {"name": "image", "size": 8, "width": 8}}, data__missing={})
    assert [len(group) for group in federations("unimodal", image_only, sites)] == [1]


def test_the_probe_reads_what_an_encoder_knows() -> None:
    torch.manual_seed(0)
    model = LateFusionModel({m: ImageEncoder(8, 1, "cnn", 6) for m in "av"}, 2)
    data = make_pictures("av", 60, 2)
    marked = data.inputs["a"] // 10 + 64 * data.labels.byte().reshape(-1, 1, 1, 1)
    telling = Batch({**data.inputs, "a": marked}, data.origin, data.labels)
    first, rest = torch.arange(40), torch.arange(40, 60)
    told, guessed = (probe(model, "a", [given.rows(first)], given.rows(rest)) for given in (telling, data))
    assert told is not None and guessed is not None
    assert told >= 0.85 and guessed <= 0.75
    alone = telling.only(["v"])
    assert probe(model, "a", [alone], telling) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"references": ["fedavgg"]}, "unknown methods fedavgg"),
        ({"seeds": [1, 11]}, "in both tuning.seeds and seeds"),
        ({"seedz": [1]}, "seedz: unknown option 'seedz'; known: name, experiment, .*did you mean 'seeds'"),
        ({"methods": {"a": {"titel": "x"}}}, "methods.a.titel: .*did you mean 'title'"),
        ({"methods": {"fedavg": {"title": "x", "arrangement": "unimodal"}}}, "needs a modality"),
        ({"settings": {"a": {"title": "x", "weak": "image", "tuned_in": "b"}}}, "unknown settings b"),
    ],
)
def test_mistakes_of_a_suite_are_named(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(SMOKE.read_text()), **change}))
    with pytest.raises(ConfigError, match=expected):
        read_suite(path, {})


def test_unknown_suites_and_settings_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert call("bench", "smok", "--work", tmp_path) == 2
    assert "did you mean 'smoke'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="unknown setting 'x'"):
        command.run(SMOKE, {}, None, ["x"], None, 1, tmp_path, None)


@pytest.mark.parametrize("path", sorted(SMOKE.parent.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_suite_resolves_every_run(path: Path) -> None:
    suite = read_suite(path, {})
    assert suite.name == path.stem
    cells = [(setting, method) for setting in suite.settings for method in suite.rows_of(setting)]
    found = list(jobs(suite, cells, suite.seeds, dict.fromkeys(cells, suite.tuning.values[:1])))
    assert len(found) == len(cells) * len(suite.seeds)
