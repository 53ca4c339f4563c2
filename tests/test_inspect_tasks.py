"""`fedmosaic inspect` of shards with several labels, with numbers, and without labels; `fedmosaic init` for them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import experiment
from test_cli import call
from test_inspect import inspected
from test_report import Page

from common.config.reading import parse, read
from common.data.shard import Shard
from common.split.make import make_shards
from deploy.shards.inspection.gallery import MOST_PER_CLASS, choose
from deploy.study.bench.starting_suite import METHODS, methods_for

LABELS: list[list[str]] = [["a", "b"], ["a", "b", "d"], ["a", "b", "d"], ["d"], ["d"], []] * 2
LABELS[-1] = ["a", "b"]
"""a and b are always together, and c never occurs."""
AGES = [40.0, 41.0, 42.0, 43.0, 44.0, 60.0]


def write(folder: Path, task: str, classes: list[str], labels: list[Any], **more: Any) -> Path:
    folder.mkdir()
    info = {"site": folder.name, "task": task, "classes": classes, "modalities": ["text"]}
    (folder / "shard.json").write_text(json.dumps(info))
    values = [{"text": f"word {number}"} | {key: own[number] for key, own in more.items()} for number in range(99)]
    lines = [{"id": str(number), "label": label, **values[number]} for number, label in enumerate(labels)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    return write(tmp_path / "sets", "multi-label", list("abcd"), LABELS)


@pytest.fixture
def ages(tmp_path: Path) -> Path:
    return write(tmp_path / "ages", "regression", ["age", "zero"], [[age, 0] for age in AGES])


class TestLabels:
    def test_an_example_counts_for_each_of_its_labels(self, sets: Path, capsys: pytest.CaptureFixture[str]) -> None:
        found = inspected(sets, capsys)
        assert (found["task"], found["experiment"], found["targets"]) == ("multi-label", "task: multi-label", {})
        assert {name: counts["examples"] for name, counts in found["classes"].items()} == {
            name: sum(name in label for label in LABELS) for name in "abcd"
        }
        assert found["classes"]["a"]["text"] == found["classes"]["a"]["examples"] == 7
        numbers = [len(label) for label in LABELS]
        assert found["labels"] == {
            "without": 1,
            "per_example": {str(number): numbers.count(number) for number in range(4)},
            "together": [["a", "b"]],
        }

    def test_labels_that_cannot_be_learned_are_named(
        self, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = inspected(sets, capsys)["attention"]
        assert said == [
            "no example has the label c: a model cannot learn from this shard when it applies",
            "the labels a, b are always together",
        ]
        every = write(tmp_path / "every", "multi-label", ["x", "y", "z"], [["x", "y"], ["x", "y", "z"]] * 2)
        (said,) = inspected(every, capsys)["attention"]
        assert said.startswith("every example has the labels x, y: ")

    def test_terminal_and_page(self, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("inspect", sets, "--out", tmp_path / "page.html") == 0
        said = capsys.readouterr().out
        assert "site sets: 12 examples, 4 labels" in said and "labels per example" in said
        page = Page((tmp_path / "page.html").read_text())
        for part in ("Labels per example", "examples per label", "a, b, d", "none", "0 to 8"):
            assert part in page.text

    def test_the_page_shows_examples_of_each_label_and_of_none(self, tmp_path: Path) -> None:
        labels = [["often"]] * 60 + [["often", "rare"]] * 5 + [["rarest"]] + [[]] * 9
        shard = Shard.open(write(tmp_path / "many", "multi-label", ["often", "rare", "rarest", "never"], labels))
        chosen = [labels[int(name)] for name in choose(shard)]
        assert chosen == [["often"]] * MOST_PER_CLASS + [["often", "rare"]] * MOST_PER_CLASS + [["rarest"]] + [[]] * 3


class TestTargets:
    def test_each_has_its_distribution_and_the_line_of_an_experiment(
        self, ages: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = inspected(ages, capsys)
        assert found["classes"] == found["labels"] == {}
        age = found["targets"]["age"]
        assert age["examples"] == len(AGES) == sum(age["histogram"])
        assert age["mean"] == pytest.approx(np.mean(AGES), rel=1e-3)
        assert age["std"] == pytest.approx(np.std(AGES), rel=1e-3)
        assert age["quantiles"] == list(np.percentile(AGES, [0, 25, 50, 75, 100]))
        task = yaml.safe_load(found["experiment"])["task"]
        assert task == {"name": "regression", "mean": {"age": 45.0, "zero": 0.0}, "std": {"age": age["std"]}}
        raw = json.loads(experiment(task="regression", method="fedavg", data__set=None).to_json())
        assert parse({**raw, "task": task}, "x").task.name == "regression"
        assert found["attention"] == ["target zero: it is always 0: a model cannot learn from it"]

    def test_terminal_and_page(self, ages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert call("inspect", ages, "--out", tmp_path / "page.html") == 0
        said = capsys.readouterr().out
        assert "site ages: 6 examples, 2 targets" in said
        assert "in the experiment: task: {name: regression, mean: {age: 45.0, zero: 0.0}" in said
        page = Page((tmp_path / "page.html").read_text())
        assert "40 to 60, quartiles" in page.text and "Standard deviation" in page.text and "age, zero" in page.text

    def test_the_page_shows_examples_of_each_tenth(self, tmp_path: Path) -> None:
        shard = Shard.open(write(tmp_path / "many", "regression", ["x"], [float(n) for n in range(80)]))
        chosen = [int(name) // 8 for name in choose(shard)]
        assert chosen == [tenth for tenth in range(10) for _ in range(MOST_PER_CLASS)]

    def test_a_column_with_other_cells_at_each_example_is_not_the_label(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rows = [{"weight": 50 + n, "group": "xyz"[n % 3]} for n in range(99)]
        ages = [float(30 + n % 3) for n in range(12)]
        folder = write(tmp_path / "rows", "regression", ["age"], ages, vitals=rows)
        info = json.loads((folder / "shard.json").read_text())
        (folder / "shard.json").write_text(json.dumps({**info, "modalities": ["vitals"]}))
        columns = {"weight": {"type": "number"}, "group": {"type": "category", "values": list("xyz")}}
        (folder / "columns.json").write_text(json.dumps({"vitals": columns}))
        said = "\n".join(inspected(folder, capsys)["attention"])
        assert "column group: it determines the label" in said and "column weight" not in said


def config(folder: Path, **changes: Any) -> Path:
    path = folder / "experiment.yaml"
    encoders = {"text": {"name": "text", "width": 8}}
    chosen = experiment(**{"data": {"clients": 2}, "method": "fedavg", "model": {"encoders": encoders}, **changes})
    path.write_text(yaml.safe_dump(json.loads(chosen.to_json())))
    return path


def test_an_experiment_with_another_task_refuses_the_shard(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("inspect", sets, "--with", config(tmp_path, task="multi-label")) == 0
    assert "would accept this site" in capsys.readouterr().out
    assert call("inspect", sets, "--with", config(tmp_path)) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "its labels are for task multi-label, the experiment's task is single-label" in said


@pytest.mark.parametrize(("mean", "std", "fits"), [(40, 8, True), (0, 1, False), (45, 40, False), (45, 1, False)])
def test_targets_that_do_not_fit_the_experiment_are_named(
    mean: float, std: float, fits: bool, ages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = {"name": "regression", "mean": {"age": mean}, "std": {"age": std}}
    found = inspected(ages, capsys, "--with", config(tmp_path, task=task))
    said = [one for one in found["attention"] if one.startswith("target age")]
    own = f"mean 45 and standard deviation {np.std(AGES):.4g}"
    expected = f"target age: {own}, but the experiment's task has mean {mean} and std {std}"
    assert said == ([] if fits else [expected])


def test_other_tasks_and_labels_in_the_other_shard_are_named(
    sets: Path, ages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = inspected(sets, capsys, "--test", ages)
    assert "the labels are for task multi-label, those of the other shard for task regression" in found["attention"]
    other = write(tmp_path / "other", "multi-label", list("abce"), [["a"]])
    found = inspected(sets, capsys, "--test", other)
    assert "the labels of the other shard differ: without 'd', with 'e'" in found["attention"]


@pytest.mark.parametrize("classes", [[], ["a", "b"]])
@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_a_shard_without_labels_has_a_page(
    task: str, classes: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "new", task, classes, [None] * 5)
    assert call("inspect", folder, "--out", tmp_path / "page.html") == 0
    assert Page((tmp_path / "page.html").read_text()).text.count("word ") == MOST_PER_CLASS


@pytest.mark.parametrize("labels", ["facts", "value"])
def test_init_writes_an_experiment_for_the_task_that_runs(
    labels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = "multi-label" if labels == "facts" else "regression"
    monkeypatch.chdir(tmp_path)
    make_shards(experiment(task=task, data__set={"name": "digit-facts", "labels": labels}, method="fedavg"), Path("s"))
    assert call("init", "new", "--shards", "s") == 0
    found = read(Path("new/experiment.yaml"))
    assert found.task.name == task and found.method["name"] == "fedavg-heads"
    if task == "regression":
        digits = [r.label[0] for n in range(2) for r in Shard.open(Path(f"s/client-{n}")).records]
        assert found.task.model_dump() == {
            "name": task, "mean": {"digit": pytest.approx(np.mean(digits), rel=1e-3)},
            "std": {"digit": pytest.approx(np.std(digits), rel=1e-3)},
        }  # fmt: skip
    suite = yaml.safe_load(Path("new/suite.yaml").read_text())
    assert suite["experiment"]["task"] == yaml.safe_load(Path("new/experiment.yaml").read_text())["task"]
    assert list(suite["methods"]) == methods_for({"task": task})
    for row in suite["methods"].values():
        parse({**json.loads(found.to_json()), "strategy": "fedcmi", "model": {"encoders": found.model.encoders},
               **row["set"]}, "x")  # fmt: skip
    capsys.readouterr()
    options = ("--shards", "s", "--engine", "inprocess", "--set", "federation.rounds=1", "--run-dir", "run")
    assert call("run", "new/experiment.yaml", *options) == 0
    assert json.loads(Path("run/summary.json").read_text())["status"] == "completed"


def test_a_suite_for_classes_has_all_methods_and_shards_of_two_tasks_have_no_experiment(
    sets: Path, ages: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert methods_for({}) == methods_for({"task": "single-label"}) == list(METHODS)
    assert "fedcmi" not in methods_for({"task": {"name": "regression"}})
    assert call("init", tmp_path / "new", "--shards", tmp_path) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the labels of sets are for task multi-label, those of ages for task regression" in said
