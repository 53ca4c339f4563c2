"""The public names of `fedmosaic` in Python: a run, its frames, comparisons and inspections equal the files and the
commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from conftest import RAW, ROOT
from pages import FENCE, sections
from test_cli import call
from test_compare import write_run
from test_inspect import inspected, shard

import fedmosaic
from fedmosaic import Run

__all__ = ["shard"]
LARGE = ("torch", "flwr", "pandas", "matplotlib", "pydantic", "numpy")
NOT_METRICS = ("by_class", "errors", "confusion", "reliability")
IMPORTED = f"""
import json, sys
import fedmosaic
print(json.dumps([name for name in {LARGE} if name in sys.modules]))
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(RAW))
    return path


@pytest.fixture(scope="module")
def runs(config: Path, tiny_shards: Path) -> list[Run]:
    """Two methods with two seeds, on the same shards."""
    made = []
    for method in ("fedavg", "fedcmi"):
        for seed in (1, 2):
            changes = {"method": method, "seed": seed, "data.set": None}
            folder = config.parent / f"{method}-{seed}"
            experiment = fedmosaic.load_experiment(config, changes)
            made.append(fedmosaic.run(experiment, shards=tiny_shards, run_dir=folder, quiet=True))
    return made


@pytest.fixture
def run(runs: list[Run]) -> Run:
    return runs[-1]


def lines_of(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def same(found: float, expected: float | None) -> bool:
    return bool(pd.isna(found)) if expected is None else found == expected


def test_importing_the_package_loads_nothing_large() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, env=env, check=True)
    assert json.loads(done.stdout) == []


def test_every_public_name_exists_and_others_do_not() -> None:
    assert dir(fedmosaic) == fedmosaic.__all__ == sorted(fedmosaic.__all__)
    for name in fedmosaic.__all__:
        assert getattr(fedmosaic, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'fedmosaic' has no attribute 'runn'"):
        fedmosaic.runn  # noqa: B018


def test_an_experiment_with_changes_equals_that_of_the_command(config: Path) -> None:
    found = fedmosaic.load_experiment(str(config), {"train.lr": 0.5, "method": "fedavg"})
    assert (found.train.lr, found.method["name"]) == (0.5, "fedavg")
    with pytest.raises(fedmosaic.FedmosaicError, match="unknown method 'fedcmy'"):
        fedmosaic.load_experiment(config, {"method": "fedcmy"})
    with pytest.raises(fedmosaic.FedmosaicError, match="1 is not the name of an option"):
        fedmosaic.load_experiment(config, {1: 2})  # type: ignore[dict-item]
    with pytest.raises(fedmosaic.FedmosaicError, match=r"nowhere\.yaml: 1 mistake\n  - cannot be read"):
        fedmosaic.load_experiment("nowhere.yaml")
    with pytest.raises(fedmosaic.FedmosaicError, match="give the changes to load_experiment"):
        fedmosaic.run(found, changes={"train.lr": 0.1})


def test_a_quiet_run_prints_nothing(runs: list[Run], tiny_shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"federation.rounds": 1}
    where = runs[0].folder.parent / "tiny.yaml"
    said = []
    for quiet in (True, False):
        fedmosaic.run(
            where, changes=changes, shards=tiny_shards, run_dir=where.with_name(f"quiet-{quiet}"), quiet=quiet
        )
        said.append(capsys.readouterr().out)
    assert said[0] == ""
    assert "round   1/1" in said[1]


def test_a_run_is_a_path(run: Run) -> None:
    assert Path(run) == run.folder
    assert os.path.join(run, "model.safetensors") == str(run.folder / "model.safetensors")
    assert fedmosaic.load_model(run).modalities == run.model().modalities == ["audio", "image"]
    assert Run(str(run.folder)).summary == run.summary == json.loads((run.folder / "summary.json").read_text())
    with pytest.raises(fedmosaic.FedmosaicError, match="has no best model"):
        run.model("best")


def test_the_history_is_that_of_metrics_jsonl(run: Run) -> None:
    history, lines = run.history, lines_of(run)
    assert list(history.columns[:4]) == ["round", "on", "subset", "examples"]
    rows = {(row["round"], row["on"], row["subset"]): row for row in history.to_dict("records")}
    expected = {
        (line["round"] - late, on, subset): figures
        for line in lines
        for on, late in (("test", 0), ("validation", 1))
        for subset, figures in line[on].items()
    }
    assert len(history) == len(rows) and rows.keys() == expected.keys()
    assert {on for _, on, _ in rows} == {"test", "validation"}
    for key, figures in expected.items():
        for metric, value in figures.items():
            assert metric in NOT_METRICS or same(rows[key][metric], value), (key, metric)
    assert not set(NOT_METRICS) & set(history.columns)
    assert history["round"].is_monotonic_increasing
    assert history["accuracy"].dtype == float


def test_losses_and_sites_are_those_of_metrics_jsonl(run: Run) -> None:
    trained = lines_of(run)[1:]
    found = [{key: value for key, value in row.items() if pd.notna(value)} for row in run.losses.to_dict("records")]
    assert found == [{"round": line["round"], **line["losses"]} for line in trained]
    sites = run.sites.set_index(["round", "site"])
    assert len(sites) == 2 * len(trained)
    for line in trained:
        for site, told in line["clients"].items():
            row = sites.loc[(line["round"], site)]
            assert row["modalities"] == "+".join(told["modalities"])
            assert (row["num_examples"], row["bytes_up"], row["failed"]) == (told["num_examples"], told["bytes_up"], "")
            assert all(row[f"losses.{term}"] == value for term, value in told["losses"].items())
            assert all(row[f"seconds.{step}"] == value for step, value in told["seconds"].items())


def test_a_site_that_failed_has_a_row_with_the_reason(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    lines = lines_of(run)
    del lines[2]["clients"]["client-0"]
    lines[2]["failed"] = {"client-0": "too late"}
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = Run(tmp_path / "run").sites.set_index(["round", "site"]).loc[(2, "client-0")]
    assert row["failed"] == "too late"
    assert pd.isna(row["num_examples"])


def test_figures_are_those_of_the_summary_with_intervals(run: Run) -> None:
    figures, summary = run.figures, run.summary
    assert list(figures.index) == ["audio", "image", "audio+image"]
    for subset, told in summary["figures"].items():
        for metric, value in told.items():
            assert metric in NOT_METRICS or same(figures.loc[subset, metric], value), (subset, metric)
        for metric, (low, high) in summary["intervals"][subset].items():
            assert (figures.loc[subset, f"{metric}_low"], figures.loc[subset, f"{metric}_high"]) == (low, high)
    assert summary["intervals"]["audio"]["accuracy"]


def test_an_unfinished_run_has_the_figures_so_far(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "report.html").unlink()
    found = Run(tmp_path / "run")
    assert found.summary == {}
    assert found.figures["accuracy"].equals(run.figures["accuracy"])
    assert "unfinished after 2 rounds" in found._repr_html_()
    assert "</html>" in found.report().read_text()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    for frame in (found.history, found.losses, found.sites, found.figures):
        assert len(frame) == 0
    assert list(found.history.columns) == ["round", "on", "subset", "examples"]


def test_the_report_and_the_table_of_a_run(run: Run) -> None:
    assert run.report() == run.folder / "report.html"
    shown = run._repr_html_()
    low, high = run.summary["intervals"]["audio+image"]["accuracy"]
    share = run.summary["scores"]["audio+image"]
    assert f"{share:.1%} (" in shown and f"{low:.1%} to {high:.1%}" in shown
    assert "completed after 2 rounds, measured on test examples" in shown
    assert "<html" not in shown


def test_names_are_escaped_in_notebooks(run: Run, tmp_path: Path, shard: Path) -> None:
    shutil.copytree(run, tmp_path / "<b>run")
    assert "&lt;b&gt;run" in Run(tmp_path / "<b>run")._repr_html_()
    info = json.loads((shard / "shard.json").read_text())
    (shard / "shard.json").write_text(json.dumps({**info, "site": "<i>", "classes": ["cat", "dog", "<u>"]}))
    shown = fedmosaic.inspect(shard)._repr_html_()
    assert "&lt;i&gt;" in shown and "&lt;u&gt;" in shown
    assert "<i>" not in shown and "<u>" not in shown


def test_folders_without_a_run_are_named(tmp_path: Path, run: Run) -> None:
    with pytest.raises(fedmosaic.FedmosaicError, match=r"fedmosaic\.Run: .*nowhere is not a run folder|nowhere is not"):
        Run(tmp_path / "nowhere")
    with pytest.raises(fedmosaic.FedmosaicError) as caught:
        fedmosaic.compare([tmp_path / "one", run, tmp_path / "two"])
    assert "one is not a run folder" in str(caught.value) and "two is not a run folder" in str(caught.value)
    shutil.copytree(run, tmp_path / "old")
    (tmp_path / "old" / "summary.json").write_text(json.dumps({**run.summary, "format": 1}))
    for read in (Run, lambda folder: fedmosaic.compare([folder])):
        with pytest.raises(fedmosaic.FedmosaicError, match="its files have format 1, and this release reads format 2"):
            read(tmp_path / "old")


def test_a_comparison_equals_that_of_the_command(runs: list[Run], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("compare", *(run.folder for run in runs), "--json") == 0
    expected = json.loads(capsys.readouterr().out)
    comparison = fedmosaic.compare(runs)
    assert json.loads(json.dumps(comparison.to_json())) == expected
    assert comparison.runs == ["fedavg-1", "fedavg-2", "fedcmi-1", "fedcmi-2"]
    assert list(comparison.settings["method.name"]) == ["fedavg", "fedcmi"]
    figures = comparison.figures.set_index(["row", "measure"])
    values = comparison.values.set_index(["row", "measure", "seed"])["value"]
    count = 0
    for label, row in zip(comparison.settings.index, expected["rows"], strict=True):
        for measure, told in row["measures"].items():
            found, delta = figures.loc[(label, measure)], told["difference"] or {}
            assert (found["mean"], found["deviation"]) == (told["mean"], told["deviation"])
            for column, key in (("difference", "mean"), ("low", "low"), ("high", "high"), ("pairs", "pairs")):
                assert same(found[column], delta.get(key))
            assert {str(seed): values[label, measure, seed] for seed in (1, 2)} == told["values"]
            count += 1
    assert len(figures) == count
    assert figures.loc[("fedcmi-1 + 1 more", "accuracy:audio"), "pairs"] == 2
    assert comparison.notes == expected["notes"]


def test_a_comparison_by_an_option_and_its_page(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / f"{rate}-{seed}", 0.8, seed, method="fedavg", train__lr=rate)
               for rate in (0.1, 0.2) for seed in (1, 2)]  # fmt: skip
    assert len(fedmosaic.compare(folders).settings) == 2
    comparison = fedmosaic.compare(folders, by=["method.name"])
    assert len(comparison.settings) == 2  # a repeated seed begins another row
    page = comparison.page(tmp_path / "page.html")
    assert "</html>" in page.read_text()
    assert "0.1-1" in comparison._repr_html_()
    with pytest.raises(fedmosaic.FedmosaicError, match="cannot be written"):
        comparison.page(tmp_path / "nowhere" / "page.html")


def test_an_inspection_equals_that_of_the_command(shard: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = inspected(shard, capsys)
    before = sorted(shard.rglob("*"))
    found = fedmosaic.inspect(shard)
    assert sorted(shard.rglob("*")) == before
    assert json.loads(json.dumps(found.to_json())) == expected
    assert (found.site, found.examples, found.refused) == ("clinic-a", 5, None)
    assert found.concerns == expected["attention"]
    assert found.classes.to_dict("index") == expected["classes"]
    assert found.patterns["examples"].to_dict() == expected["patterns"]
    assert found.patterns["share"].sum() == pytest.approx(1)
    assert found.broken.to_dict("records") == expected["broken"]
    for name, told in expected["modalities"].items():
        row = found.modalities.loc[name]
        for key in ("values", "constant", "unit", "shortest", "longest", "lowest", "highest"):
            assert same(row[key], told.get(key)), (name, key)
    assert list(found.modalities["broken"]) == [1, 2, 0]
    assert found.modalities.loc["audio", "median"] == 0.75
    assert len(found.columns) == 0


def test_an_inspection_with_an_experiment_a_test_shard_and_a_sample(
    config: Path, tiny_shards: Path, tmp_path: Path, shard: Path
) -> None:
    experiment = fedmosaic.load_experiment(config)
    opened = fedmosaic.Shard.open(str(tiny_shards / "client-0"))
    assert fedmosaic.inspect(opened, experiment).refused is None
    only_text = fedmosaic.load_experiment(
        config, {"model.encoders": {"signal": {"name": "signal", "channels": 1, "length": 8}}, "data.set": None,
                 "data.missing": {}, "method": "fedavg"}
    )  # fmt: skip
    found = fedmosaic.inspect(opened, only_text, sample=5)
    assert found.examples == 5
    assert found.refused == "the experiment has no encoder for any modality of the shard"
    assert "A run would refuse this site" in found._repr_html_()
    said = fedmosaic.inspect(shard, test=shard).concerns
    assert any("files are also in the other shard" in line for line in said)
    with pytest.raises(fedmosaic.FedmosaicError, match="sample: must be at least 1"):
        fedmosaic.inspect(shard, sample=0)
    with pytest.raises(fedmosaic.FedmosaicError, match="there is no such folder"):
        fedmosaic.inspect(tmp_path / "nowhere")


def test_the_columns_of_a_table_are_shown(tmp_path: Path) -> None:
    info = {"site": "ward", "classes": ["well", "ill"], "modalities": ["vitals"]}
    (tmp_path / "shard.json").write_text(json.dumps(info))
    columns = {"vitals": {"age": {"type": "number", "unit": "years"}}}
    (tmp_path / "columns.json").write_text(json.dumps(columns))
    rows = [{"id": str(n), "label": info["classes"][n % 2], "vitals": {"age": 20 + n}} for n in range(4)]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (row,) = fedmosaic.inspect(tmp_path).columns.to_dict("records")
    assert (row["modality"], row["column"], row["type"], row["missing"]) == ("vitals", "age", "number, years", 0)


@pytest.mark.slow
def test_the_documented_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("init", "study") == 0
    text = (ROOT / "docs" / "how-to" / "python.md").read_text()
    space = dict[str, Any]()
    for language, _, block in FENCE.findall(text):
        if language == "python":
            exec(compile(block, "python.md", "exec"), space)
    said = capsys.readouterr().out
    assert "completed" in said and "unknown method 'fedcmy'" in said
    assert space["by_round"].shape == (3, 7)
    assert set(space["predictions"][0].modalities) == {"image", "text"}
    assert (tmp_path / "comparison.html").is_file()


def test_the_page_names_every_public_name_and_attribute() -> None:
    text = (ROOT / "docs" / "how-to" / "python.md").read_text()
    rows = re.findall(r"^\| `(\w+)", sections(text)["Read the figures of a run"], re.M)
    assert set(rows) == {name for name in vars(Run) if not name.startswith("_")} | {"folder"}
    arguments = re.findall(r"^\| `(\w+)`", sections(text)["Run an experiment"], re.M)
    assert arguments == list(signature(fedmosaic.run).parameters)
    frames = {name for kind in (fedmosaic.Comparison, fedmosaic.Inspection) for name in vars(kind) if name[0] != "_"}
    fields = {"runs", "survey", "to_json"}  # the source of the others, and names that explain themselves
    assert not [name for name in frames - fields if not re.search(rf"\b{name}\b", text)]
