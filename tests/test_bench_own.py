"""Benchmarks on one's own shards: which runs they have, what they refuse, what they write, and when they run again."""

import copy
import csv
import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import RAW
from test_bench import ran
from test_cli import call
from test_completion import COMPLETION, tiny

from common.data.shard import Example, Media, Shard, ShardInfo, ShardWriter
from common.data.sites import client_folders, site_folders
from common.errors import ConfigError, ShardError
from common.split.make import make_shards
from deploy.shards.held_out import hold_out
from deploy.study.bench import command
from deploy.study.bench.pages.latex import escaped
from deploy.study.bench.pages.words import OWN_SHARDS
from deploy.study.bench.runner import Runner, best_value, left, validation_score
from deploy.study.bench.starting_suite import METHODS, starting_suite
from deploy.study.bench.statistics import Aim, chosen_round, measure
from deploy.study.bench.suite import Job, Suite, jobs, read_suite
from deploy.study.bench.trial import perform, prepare

BOTH = {"fedavg": {"title": "FedAvg & co_1", "set": {"method": "fedavg"}},
        "fedcmi": {"title": "FedCMI", "set": {"method": "fedcmi"}}}  # fmt: skip


def own_folder(source: Path, target: Path) -> Path:
    """Shards with folders of other names: north, south and test."""
    for name, own in (("client-0", "north"), ("client-1", "south"), ("test", "test")):
        shutil.copytree(source / name, target / own)
    return target


def written(folder: Path, shards: Path, experiment: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A suite of two methods in a file."""
    parts = {"model": RAW["model"], "train": {"optimizer": "adamw", "epochs": 4, "batch_size": 16},
             "federation": {"rounds": 1}, "data": {"validation": 0.2}}  # fmt: skip
    suite = {
        "name": "own",
        "shards": str(shards),
        "references": ["fedavg"],
        "seeds": [1, 2],
        "tuning": {"option": "train.lr", "values": [0.01], "seeds": [11]},
        "experiment": {**copy.deepcopy(parts), **(experiment or {})},
        "settings": {"own": {"title": "Own 100 % data"}},
        "methods": BOTH,
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite | changes))
    return path


def table_jobs(suite: Suite) -> list[Job]:
    cells = [("own", method) for method in suite.rows_of("own")]
    return list(jobs(suite, cells, suite.seeds, {cell: [0.01] for cell in cells}))


@contextmanager
def in_a_thread(_: Runner) -> Iterator[ThreadPoolExecutor]:
    """In place of worker processes, which take long to start."""
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def shards(tiny_shards: Path, tmp_path: Path) -> Path:
    return own_folder(tiny_shards, tmp_path / "shards")


@pytest.fixture(scope="module")
def finished(tiny_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished benchmark on own shards, with its suite and its shards."""
    folder = tmp_path_factory.mktemp("finished")
    suite = written(folder, own_folder(tiny_shards, folder / "shards"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runner, "_workers", in_a_thread)
        assert call("bench", suite, "--work", folder / "work", "--out", folder / "out") == 0
    return folder


def test_each_site_is_a_client_and_seeds_change_the_seed_alone(shards: Path, tmp_path: Path) -> None:
    suite = read_suite(written(tmp_path, shards), {})
    found = table_jobs(suite)
    assert [(job.method, job.seed) for job in found] == [("fedavg", 1), ("fedavg", 2), ("fedcmi", 1), ("fedcmi", 2)]
    assert {job.own for job in found} == {shards}
    assert {job.experiment.data.clients for job in found} == {2}
    first, second = (job.experiment.model_copy(update={"seed": 0}) for job in found[:2])
    assert first == second and first.data.set is None


def test_the_values_in_all_files_are_the_same(finished: Path) -> None:
    out = finished / "out"
    content = json.loads((out / "own-own.json").read_text())
    results = json.loads((out / "results.json").read_text())
    assert (results["metric"], results["shards"]) == ("accuracy", str(finished / "shards"))
    assert [(run["method"], run["seed"], run["stage"]) for run in results["runs"]] == [
        *((method, seed, "table") for method in BOTH for seed in (1, 2)),
        *((method, 11, "tuning") for method in BOTH),
    ]
    table = (out / "own-own.md").read_text()
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    for method, row in content["rows"].items():
        for name, found in row["measures"].items():
            own = {str(run["seed"]): run["measures"][name]
                   for run in results["runs"] if run["method"] == method and run["stage"] == "table"}  # fmt: skip
            listed = {line["seed"]: float(line["result"]) for line in rows
                      if (line["method"], line["measure"], line["stage"]) == (method, name, "table")}  # fmt: skip
            assert own == listed == found["values"]
        fused = row["measures"]["accuracy"]
        assert f"| {row['title']} | 0.01 | {100 * fused['mean']:.1f} ± {100 * fused['deviation']:.1f} |" in table
    assert "accuracy:audio+image" in results["runs"][0]["measures"]
    assert "macro_f1:audio" in results["runs"][0]["measures"]


def test_the_pages_say_what_the_intervals_cover(finished: Path) -> None:
    assert OWN_SHARDS in (finished / "out" / "own-own.md").read_text()
    assert OWN_SHARDS in (finished / "out" / "own-own.tex").read_text()


def test_the_latex_table_is_balanced_and_its_texts_are_escaped(finished: Path) -> None:
    text = (finished / "out" / "own-own.tex").read_text()
    bare = re.sub(r"\\[&%$#_{}]", "", "\n".join(line for line in text.splitlines() if not line.startswith("%")))
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    assert re.findall(r"\\begin{(\w+)}", text) == [*reversed(re.findall(r"\\end{(\w+)}", text))]
    (columns,) = re.findall(r"\\begin{tabular}{(\w+)}", text)
    rows = [line for line in bare.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in rows} == {len(columns) - 1} and len(rows) == 3
    assert r"FedAvg \& co\_1" in text and r"Own 100 \% data" in text
    assert r"\textbf{" in text and "%" not in re.sub(r"\\%", "", bare)
    assert text.isascii()


def test_special_characters_of_latex() -> None:
    assert escaped("a_b & 5 % ± {x} \\ ~^ $#") == (
        r"a\_b \& 5 \% $\pm$ \{x\} \textbackslash{} \textasciitilde{}\textasciicircum{} \$\#"
    )


def test_a_continued_benchmark_runs_what_is_missing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "_workers", in_a_thread)
    shutil.copytree(finished / "work", tmp_path / "work")
    suite, said = read_suite(finished / "suite.yaml", {}), []
    (lost,) = (tmp_path / "work" / "runs" / "own").glob("fedcmi-seed2-*.json")
    before = json.loads(lost.read_text())
    lost.unlink()
    Runner(suite, tmp_path / "work", 1, lambda done, total, text: said.append(text)).run(["own"], suite.seeds)
    assert said[0] == "shards ready" and len(said) == 2 and "fedcmi  seed 2" in said[1]
    assert json.loads(lost.read_text())["rounds"][-1]["test"] == before["rounds"][-1]["test"]


def test_runs_on_other_content_are_not_taken_for_these(finished: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(finished / "shards", moved)

    def done(folder: Path) -> list[bool]:
        suite = read_suite(finished / "suite.yaml", {}, shards=folder)
        runner = Runner(suite, finished / "work", 1, lambda *_: None)
        return [runner._file(job).exists() for job in table_jobs(suite)]

    assert done(finished / "shards") == done(moved) == [True] * 4
    metadata = moved / "south" / "metadata.jsonl"
    first, *rest = metadata.read_text().splitlines(keepends=True)
    metadata.write_text("".join(rest))
    assert done(moved) == [False] * 4
    metadata.write_text("".join([first, *rest]))
    assert done(moved) == [True] * 4
    sound = next((moved / "north").glob("audio/*"))
    sound.write_bytes(sound.read_bytes() + b"\0")
    assert done(moved) == [False] * 4


def test_all_mistakes_are_listed_at_once(shards: Path, tmp_path: Path) -> None:
    shutil.rmtree(shards / "test")
    file = written(
        tmp_path,
        shards,
        {"data": {"limit": 10, "clients": 3, "partition": {"name": "iid"}}},
        settings={"own": {"title": "x", "set": {"data.missing.unimodal_clients": 0.5}}},
        methods=BOTH | {"few": {"title": "x", "set": {"data.test_limit": 5}}},
    )
    with pytest.raises(ConfigError) as found:
        read_suite(file, {"data.set": "digits-mini"})
    text = str(found.value)
    for expected in (
        "experiment: data.limit has no effect on your own shards",
        "experiment: data.partition has no effect",
        "experiment: data.set has no effect",
        "settings.own.set: data.missing.unimodal_clients has no effect",
        "methods.few.set: data.test_limit has no effect",
        f"{shards} has no test shard: import test files with `fedmosaic import --out {shards / 'test'}`",
        f"`fedmosaic split {shards} --out DIR`",
    ):
        assert expected in text
    assert len(found.value.mistakes) == 6


def test_wrong_experiments_are_named_before_the_first_run(shards: Path, tmp_path: Path) -> None:
    wrong = {"typo": {"title": "x", "set": {"method": "fedcmy"}, "tuned_as": "fedavg"},
             "text": {"title": "x", "set": {"method": "fedavg", "model.encoders.text": {"name": "text"}}}}  # fmt: skip
    with pytest.raises(ConfigError) as found:
        read_suite(written(tmp_path, shards, methods=BOTH | wrong), {})
    assert "own, typo: method: unknown method 'fedcmy'" in str(found.value)
    assert "model.encoders.text: no site has this modality" in str(found.value)
    with pytest.raises(ConfigError, match=r"data.clients is 3, but .* has 2 sites"):
        read_suite(written(tmp_path, shards), {"data.clients": 3})
    early = {"federation.patience": 2, "federation.keep": {"best": "accuracy on validation"}}
    with pytest.raises(ConfigError, match=r"federation\.patience: all runs have the same rounds"):
        read_suite(written(tmp_path, shards), early)


def test_a_test_shard_without_complete_examples_is_refused(shards: Path, tmp_path: Path) -> None:
    metadata = shards / "test" / "metadata.jsonl"
    lines = [json.loads(line) for line in metadata.read_text().splitlines()]
    halves = [{k: v for k, v in line.items() if k != ("audio_file_name", "image_file_name")[i % 2]}
              for i, line in enumerate(lines)]  # fmt: skip
    metadata.write_text("".join(json.dumps(line) + "\n" for line in halves))
    with pytest.raises(ConfigError, match="no example of the test shard has all of audio, image"):
        read_suite(written(tmp_path, shards), {})


def test_shards_that_do_not_belong_together_are_refused(shards: Path, tmp_path: Path) -> None:
    info = json.loads((shards / "south" / "shard.json").read_text())
    swapped = info["classes"][::-1]
    (shards / "south" / "shard.json").write_text(json.dumps(info | {"classes": swapped, "site": "client-0"}))
    with pytest.raises(ConfigError) as found:
        read_suite(written(tmp_path, shards), {})
    assert "the classes of south differ from those of north: the same names in another order" in str(found.value)
    assert f"import all sites again with --classes '{','.join(sorted(swapped))}'" in str(found.value)
    assert "2 shards have the site name client-0" in str(found.value)
    with pytest.raises(ConfigError, match="contains no shards: make one per site with `fedmosaic import`"):
        read_suite(written(tmp_path, tmp_path / "nowhere"), {})


def test_unknown_methods_and_too_many_seeds_are_named(shards: Path, tmp_path: Path) -> None:
    file = written(tmp_path, shards)
    with pytest.raises(ConfigError, match="did you mean 'fedavg'"):
        command.run(file, {}, None, None, None, 1, tmp_path / "work", None, methods=["fedavgg"])
    with pytest.raises(ConfigError, match="--seeds is 5, but the suite has 2 seeds"):
        command.run(file, {}, None, None, 5, 1, tmp_path / "work", None)


def test_another_metric_chooses_and_leads(shards: Path, tmp_path: Path) -> None:
    run = ran(1, 0.8)
    for line, f1 in zip(run["rounds"], (0.1, 0.2, 0.9, 0.3), strict=True):
        line["received"] = {"a+v": {"accuracy": 0.5, "macro_f1": f1}}
        line["test"]["a+v"]["macro_f1"] = 1 - f1
    f1, error = Aim("macro_f1"), Aim("macro_f1", higher_is_better=False)
    assert (chosen_round(run), chosen_round(run, f1), chosen_round(run, error)) == (0, 1, 0)
    assert measure(run, "chosen", f1) == pytest.approx(0.8)
    assert validation_score(run, f1) == 0.3
    other = copy.deepcopy(run) | {"value": 0.2}
    other["rounds"][-1]["received"]["a+v"]["macro_f1"] = 0.4
    diverged = run | {"value": 0.01, "status": "diverged"}
    assert [best_value([diverged, run, other], aim) for aim in (f1, error)] == [0.2, 0.1]
    suite = read_suite(written(tmp_path, shards, metric="macro_f1"), {})
    assert Runner(suite, tmp_path, 1, lambda *_: None).aim == f1
    assert read_suite(written(tmp_path, shards, metric="brier"), {}).aim == Aim("brier", higher_is_better=False)
    wrong = read_suite(written(tmp_path, shards, metric="macro_f2"), {})
    with pytest.raises(ConfigError, match=r"metric: unknown metric 'macro_f2'.*did you mean 'macro_f1'"):
        Runner(wrong, tmp_path, 1, lambda *_: None)


def number_shards(folder: Path) -> Path:
    """Two sites and a test shard for a regression: a word and its number."""
    for name, count in (("east", 12), ("west", 12), ("test", 8)):
        info = ShardInfo(site=name, task="regression", classes=["size"], modalities=["text"])
        words = ("small", "large")
        ShardWriter(folder / name, info).write(
            Example(str(i), (float(i % 2),), {"text": Media.text(words[i % 2])}) for i in range(count)
        )
    return folder


def test_a_regression_has_its_metric_and_the_smallest_error_in_bold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "_workers", in_a_thread)
    shards = number_shards(tmp_path / "shards")
    model = {"encoders": {"text": {"name": "text", "buckets": 64, "length": 8, "width": 8}}}
    still = {"title": "Still", "set": {"method": "fedavg", "train.lr": 1e-9}, "tuned_as": "fedavg"}
    methods = {"fedavg": {"title": "FedAvg", "set": {"method": "fedavg"}}, "still": still}
    file = written(tmp_path, shards, {"task": "regression", "model": model}, metric="rmse", methods=methods,
                   tuning={"option": "train.weight_decay", "values": [0.0], "seeds": [11]},
                   settings={"own": {"title": "Sizes", "set": {"train.lr": 0.02, "train.epochs": 10}}})  # fmt: skip
    assert call("bench", file, "--work", tmp_path / "work") == 0
    content = json.loads((tmp_path / "work" / "own-own.json").read_text())
    means = {name: row["measures"]["rmse"]["mean"] for name, row in content["rows"].items()}
    assert means["fedavg"] < means["still"]
    table = (tmp_path / "work" / "own-own.md").read_text()
    assert table.startswith("# Sizes\n\nRMSE on the test part") and f"| 0 | {means['fedavg']:.3f} ± " in table
    assert rf"FedAvg & \textbf{{{means['fedavg']:.3f}}}" in (tmp_path / "work" / "own-own.tex").read_text()
    weak = {"own": {"title": "x", "weak": "text"}}
    with pytest.raises(ConfigError, match=r"settings\.own\.weak: a probe needs the task single-label"):
        read_suite(written(tmp_path, shards, {"task": "regression", "model": model}, settings=weak), {})
    with pytest.raises(ConfigError, match="task: the experiment is single-label, the shards are regression"):
        read_suite(written(tmp_path, shards, {"model": model}), {})


def test_the_remaining_time_is_an_estimate_to_a_minute() -> None:
    assert [left(seconds) for seconds in (20, 90, 3600, 3 * 3600)] == [
        "",
        "  (about 2 min left)",
        "  (about 60 min left)",
        "  (about 3 h left)",
    ]


@pytest.mark.slow
def test_own_shards_are_completed_for_the_rows_that_need_it(models: Path, tmp_path: Path) -> None:
    make_shards(tiny(), tmp_path / "made")
    shards = own_folder(tmp_path / "made", tmp_path / "shards")
    completed = {"title": "x", "set": {"method": "fedavg", "completion": COMPLETION, "strategy": "cka"}}
    file = written(
        tmp_path, shards, {"model": {"encoders": tiny().model.encoders}}, methods=BOTH | {"whole": completed}
    )
    suite = read_suite(file, {})
    found = [job for job in table_jobs(suite) if job.seed == 1]
    before = Runner(suite, tmp_path, 1, lambda *_: None)._file(found[-1])
    prepare(found[-1], [job.experiment for job in found], tmp_path)
    assert len(list((shards / "north" / "completed").iterdir())) == 2 and (shards / "probe" / "shard.json").exists()
    assert not (shards / "test" / "completed").exists()
    assert Runner(suite, tmp_path, 1, lambda *_: None)._file(found[-1]) == before
    assert perform(found[-1], tmp_path)["status"] in ("completed", "diverged")


def test_sites_are_in_one_order_whatever_their_names(tmp_path: Path) -> None:
    for name in ("client-10", "client-9", "west", "North", "test", "probe", ".north.partial", "notes"):
        (tmp_path / name).mkdir()
        if name != "notes":
            (tmp_path / name / "shard.json").touch()
    assert [folder.name for folder in site_folders(tmp_path)] == ["North", "client-9", "client-10", "west"]
    with pytest.raises(ShardError, match=r"4 shards of sites \(North, .*\), and data.clients is 2"):
        client_folders(tmp_path, 2)


def test_a_run_takes_shards_of_any_names(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    raw = copy.deepcopy(RAW) | {"data": {"clients": 2}}
    Path("own.yaml").write_text(yaml.safe_dump(raw))
    assert call("run", "own.yaml", "--engine", "inprocess", "--shards", shards, "--set", "federation.rounds=1") == 0
    assert json.loads(Path("runs/tiny/summary.json").read_text())["status"] == "completed"
    assert call("run", "own.yaml", "--engine", "inprocess", "--shards", shards, "--set", "data.clients=3") == 2
    assert call("inspect", shards) == 2
    said = capsys.readouterr().err
    assert "has 2 shards of sites (north, south), and data.clients is 3" in said
    assert f"{shards} is a folder of shards: name one of them, e.g. {shards / 'north'}" in said


def test_init_writes_a_suite_that_runs_as_it_is(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "study", "--shards", "shards") == 0
    assert "fedmosaic bench study/suite.yaml" in capsys.readouterr().out
    assert max(len(line) for line in Path("study/suite.yaml").read_text().splitlines()) <= 120
    suite = read_suite(Path("study/suite.yaml"), {})
    experiment = yaml.safe_load(Path("study/experiment.yaml").read_text())
    found = table_jobs(suite)
    assert [job.method for job in found[::3]] == list(METHODS) == [job.experiment.method["name"] for job in found[::3]]
    assert suite.experiment["model"]["encoders"] == experiment["model"]["encoders"]
    assert suite.tuning.values == [0.0006, 0.002, 0.006] and len(suite.seeds) == 3
    assert {job.experiment.strategy["name"] for job in found if job.experiment.strategy} == {"fedcmi"}
    numbers = yaml.safe_load(starting_suite(experiment | {"task": "regression"}, shards, Path("numbers.yaml")))
    assert numbers["experiment"]["task"] == "regression" and numbers["experiment"]["data"] == {"validation": 0.2}
    assert call("init", "one", "--shards", shards / "north") == 0
    assert [path.name for path in Path("one").iterdir()] == ["experiment.yaml"]


class TestSplit:
    def test_every_example_is_in_one_part_and_classes_keep_their_shares(self, shards: Path, tmp_path: Path) -> None:
        shutil.rmtree(shards / "test")
        assert call("split", shards, "--test", "0.25", "--out", tmp_path / "divided") == 0
        test = Shard.open(tmp_path / "divided" / "test")
        held = {record.id for record in test.records}
        for name in ("north", "south"):
            before, after = Shard.open(shards / name), Shard.open(tmp_path / "divided" / name)
            kept = {record.id for record in after.records}
            assert kept | {one.removeprefix(f"{name}/") for one in held if one.startswith(name)} == {
                record.id for record in before.records
            }
            assert len(kept) + sum(one.startswith(name) for one in held) == len(before.records)
            assert {record.label for record in after.records} == {record.label for record in before.records}
        assert 0.15 < len(held) / 80 < 0.35
        assert (
            test.info.modalities == ["audio", "image"]
            and test.info.classes == Shard.open(shards / "north").info.classes
        )
        contents = {record.files["audio"].read_bytes() for record in test.records if record.has("audio")}
        others = {record.files["audio"].read_bytes() for record in Shard.open(tmp_path / "divided" / "south").records}
        assert not contents & others
        assert len(table_jobs(read_suite(written(tmp_path, tmp_path / "divided"), {}))) == 4

    def test_mistakes_are_listed_at_once(
        self, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert call("split", shards, "--test", "1.5", "--out", tmp_path / "divided") == 2
        said = capsys.readouterr().err
        assert "--test is 1.5: it must be between 0 and 1" in said and "there is a test shard already" in said
        assert call("split", shards / "north", "--out", tmp_path / "divided") == 2
        assert "is one shard: name the folder" in capsys.readouterr().err
        shutil.rmtree(shards / "test")
        assert call("split", shards, "--out", shards) == 2
        assert "exists and is not empty" in capsys.readouterr().err
        assert call("split", shards, "--test", "0.001", "--out", tmp_path / "divided") == 2
        assert "no class of a site has enough examples to hold out 0%" in capsys.readouterr().err
        assert not (tmp_path / "divided").exists()

    def test_categories_of_all_sites_are_in_the_test_shard(self, tmp_path: Path) -> None:
        shards = [table_shard(tmp_path / name, {"type": "category", "values": [name]}, name) for name in ("a", "b")]
        hold_out(shards, 0.5, 1, tmp_path / "out")
        test = Shard.open(tmp_path / "out" / "test")
        assert test.columns["vitals"]["ward"].model_dump()["values"] == ["a", "b"]
        assert sorted(record.rows["vitals"].cells["ward"] for record in test.records) == ["a", "a", "b", "b"]
        other = table_shard(tmp_path / "c", {"type": "number", "unit": "years"}, 3)
        with pytest.raises(
            ShardError, match="vitals: column ward is a category at a, but a number with the unit years"
        ):
            hold_out([shards[0], other], 0.5, 1, tmp_path / "other")


def table_shard(folder: Path, column: dict[str, Any], cell: str | float) -> Shard:
    """Four examples with a table of one column."""
    from pydantic import TypeAdapter

    from common.columns import Columns

    columns = TypeAdapter(Columns).validate_python({"ward": column})
    info = ShardInfo(site=folder.name, classes=["x"], modalities=["vitals"])
    ShardWriter(folder, info, {"vitals": columns}).write(
        Example(str(i), "x", {"vitals": Media.row({"ward": cell})}) for i in range(4)
    )
    return Shard.open(folder)
