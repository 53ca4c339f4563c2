"""Multi-label classification and regression from shards to predictions."""

import csv
import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import experiment
from running import running
from safetensors.torch import load_file
from sklearn.metrics import r2_score, roc_auc_score
from test_cli import call

from client.methods.shared.criterion import BinaryCrossEntropy, Criterion, SquaredError, criterion_of
from client.policy import Policy
from common.config.task import MultiLabel, TaskName
from common.data.shard import Shard
from common.errors import ConfigError, ShardError
from common.split.make import make_shards
from common.split.strata import strata
from common.tasks.find import task_of
from common.tasks.labels import as_written, in_words, read_label
from common.tasks.observed import tally
from common.tasks.targets import targets
from common.trained.predictor import load_model
from deploy.engines.launch import executable
from deploy.shards.prediction import figures_of, predict_shard
from server.report.page import write_report

LABELS = ["even", "prime", "square", "above six"]
OPTIONS: dict[TaskName, dict[str, Any]] = {
    "multi-label": {
        "task": "multi-label",
        "data__set": {"name": "digit-facts"},
        "method": {"name": "fedavg-heads"},
        "train__lr": 0.1,
    },
    "regression": {
        "task": {"name": "regression", "mean": {"digit": 4.5}, "std": {"digit": 2.9}},
        "data__set": {"name": "digit-facts", "labels": "value"},
        "method": {"name": "fedavg-heads"},
        "train__lr": 0.003,
    },
}
TASKS = pytest.mark.parametrize("task", OPTIONS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[TaskName, Path]:
    """client-0, client-1 and test of each task."""
    folder = tmp_path_factory.mktemp("tasks")
    for task, options in OPTIONS.items():
        make_shards(experiment(**options), folder / task)
    return {task: folder / task for task in OPTIONS}


def config(folder: Path, task: TaskName, **changes: Any) -> Path:
    path = folder / f"{task}.yaml"
    path.write_text(yaml.safe_dump(json.loads(experiment(**OPTIONS[task], **changes).to_json())))
    return path


@pytest.fixture(scope="module")
def runs(shards: dict[TaskName, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[TaskName, Path]:
    """A run of two rounds of each task."""
    folder = tmp_path_factory.mktemp("runs")
    for task, made in shards.items():
        options = ("--engine", "inprocess", "--shards", made, "--run-dir", folder / task)
        assert call("run", config(folder, task), *options) == 0
    return {task: folder / task for task in shards}


@TASKS
def test_the_figures_of_a_run_are_those_of_its_predictions(
    task: TaskName, runs: dict[TaskName, Path], shards: dict[TaskName, Path]
) -> None:
    summary = json.loads((runs[task] / "summary.json").read_text())
    assert (summary["task"], summary["metric"]) == (task, {"multi-label": "auroc", "regression": "r2"}[task])
    predictor, shard = load_model(runs[task]), Shard.open(shards[task] / "test")
    rows = predict_shard(predictor, shard)
    said = summary["figures"]["audio+image"]
    found = figures_of(rows, predictor)
    assert found == pytest.approx({key: said[key] for key in found})
    low, high = summary["intervals"]["audio+image"][summary["metric"]]
    assert low <= summary["scores"]["audio+image"] <= high
    truth = targets(task, [record.label for record in shard.records], predictor.classes).numpy()
    given = [row.prediction for row in rows]
    if task == "multi-label":
        scores = np.array([[p.probabilities[name] for name in LABELS] for p in given if p])
        assert found["auroc"] == pytest.approx(roc_auc_score(truth, scores))
        assert all(p.label == tuple(name for name in LABELS if p.probabilities[name] >= 0.5) for p in given if p)
    else:
        assert found["r2"] == pytest.approx(r2_score(truth[:, 0], [p.label[0] for p in given if p]))
        assert all(p.probabilities == {} for p in given if p)


@TASKS
def test_predict_writes_labels_of_the_task(
    task: TaskName,
    runs: dict[TaskName, Path],
    shards: dict[TaskName, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    test = shards[task] / "test"
    assert call("predict", runs[task], "--shard", test, "--out", tmp_path / "made.csv") == 0
    assert {"multi-label": "auroc", "regression": "r2"}[task] in capsys.readouterr().out
    with (tmp_path / "made.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and "confidence" not in rows[0]
    first = Shard.open(test).records[0]
    if task == "multi-label":
        assert rows[0]["label"] == ";".join(first.label) and 0 <= float(rows[0]["p(even)"]) <= 1
    else:
        assert float(rows[0]["label"]) == first.label[0] and float(rows[0]["prediction"])
    assert call("predict", runs[task], "--shard", test, "--json") == 0
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert line["label"] == as_written(first.label)
    files = [f"{m}={first.files[m]}" for m in ("audio", "image")]
    assert call("predict", runs[task], "--input", *files) == 0
    assert "from audio and image" in capsys.readouterr().out
    assert call("predict", runs[task], "--shard", test) == 0


@TASKS
def test_report_comparison_and_card_name_the_metric_of_the_task(
    task: TaskName, runs: dict[TaskName, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = {"multi-label": "AUROC", "regression": "R²"}[task]
    page = write_report(runs[task]).read_text()
    assert f"{name} by modality subset" in page and f"the model reaches {name}" in page
    assert ("Calibration" in page) == (task == "multi-label")
    assert "Confusion matrix" not in page
    assert all(label in page for label in (LABELS if task == "multi-label" else ["digit"]))
    assert call("compare", runs[task]) == 0
    assert f"{name} by available modalities" in " ".join(capsys.readouterr().out.split())
    assert call("export", runs[task], "--out", tmp_path / "model") == 0
    assert f"| modalities | {name} |" in (tmp_path / "model" / "README.md").read_text()
    model = load_model(tmp_path / "model")
    assert model.task.name == task


def test_runs_of_different_tasks_are_not_compared(
    runs: dict[TaskName, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("compare", *runs.values()) == 2
    assert "different tasks, multi-label and regression" in capsys.readouterr().err


@TASKS
def test_a_shard_of_another_task_is_refused_by_site_and_server(
    task: TaskName, shards: dict[TaskName, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = next(one for one in OPTIONS if one != task)
    options = ("--engine", "inprocess", "--shards", shards[other], "--set", "data.set=null")
    assert call("run", config(tmp_path, task), *options, "--run-dir", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert f"its labels are for task {other}, the experiment's task is {task}" in " ".join(said.split())


def test_the_config_names_what_a_task_has_not() -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(task="regression", method="fedcmi", metrics=["auroc", "mae"], train__label_smoothing=0.1)
    said = str(caught.value)
    assert "method: it is not defined for task 'regression', only for" in said
    assert "data.set: it is not defined for task 'regression', only for single-label" in said
    assert "metrics.0: it is not defined for task 'regression'" in said and "metrics.1" not in said
    with pytest.raises(ConfigError, match=r"task: .*unknown name 'multilabel'"):
        experiment(task="multilabel")
    with pytest.raises(ConfigError, match=r"task.thresholds.evn: unknown class 'evn'.*did you mean 'even'"):
        experiment(
            task={"name": "multi-label", "thresholds": {"evn": 0.2}}, data__classes=LABELS,
            data__set={"name": "digit-facts"}, method="fedavg",
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"train.label_smoothing: a regression has no classes"):
        experiment(**{**OPTIONS["regression"], "train__label_smoothing": 0.1})


def test_the_names_of_thresholds_are_checked_against_the_labels_of_the_sites(
    shards: dict[TaskName, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = config(tmp_path, "multi-label")
    options = (
        "--set",
        "task={name: multi-label, thresholds: {odd: 0.2}}",
        "--engine",
        "inprocess",
        "--shards",
        shards["multi-label"],
        "--run-dir",
        tmp_path / "run",
    )
    assert call("run", chosen, *options) != 0
    assert "task.thresholds.odd: unknown class 'odd'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("task", "label", "reason"),
    [
        ("multi-label", "cat", "list of texts"),
        ("multi-label", ["cat", "cat"], "twice"),
        ("multi-label", ["cow"], "not among the classes"),
        ("multi-label", [1], "list of texts"),
        ("regression", "cat", "must be a number"),
        ("regression", True, "must be a number"),
        ("regression", [1.0], "has 1 numbers"),
        ("regression", [1.0, float("nan")], "must be a number"),
        ("single-label", ["cat"], "as text"),
    ],
)
def test_a_wrong_label_is_a_mistake_with_its_line(task: TaskName, label: Any, reason: str, tmp_path: Path) -> None:
    right = {"single-label": "cat", "multi-label": ["cat"], "regression": [1, 2.5]}[task]
    assert read_label(task, right, ["cat", "dog"])
    info = {"site": "s", "task": task, "classes": ["cat", "dog"], "modalities": ["text"]}
    (tmp_path / "shard.json").write_text(json.dumps(info))
    lines = [{"id": "1", "label": right, "text": "x"}, {"id": "2", "label": label, "text": "y"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ShardError, match=rf"line 2: .*{reason}"):
        Shard.open(tmp_path)


@pytest.mark.parametrize(
    ("task", "label", "target", "words"),
    [
        ("single-label", "b", 1, "b"),
        ("single-label", "", -1, ""),
        ("multi-label", ("a", "c"), [1, 0, 1], "a, c"),
        ("multi-label", (), [0, 0, 0], "none"),
        ("multi-label", "", [float("nan")] * 3, ""),
        ("regression", (1.5, -2.0, 3.0), [1.5, -2, 3], "1.5, -2, 3"),
    ],
)
def test_labels_become_targets(task: TaskName, label: Any, target: Any, words: str) -> None:
    made = targets(task, [label], ["a", "b", "c"])[0]
    torch.testing.assert_close(made, torch.tensor(target), equal_nan=True, check_dtype=False)
    assert in_words(label) == words
    if label != "":
        assert read_label(task, as_written(label), ["a", "b", "c"]) == label


def test_examples_are_divided_by_their_rarest_label_or_their_tenth() -> None:
    assert strata([("a", "b"), ("a",), (), ("b", "c"), ("a", "c"), ("a",)]) == ["b", "a", "none", "b", "c", "a"]
    assert strata(["x", "y"]) == ["x", "y"]
    numbers = strata([(float(i),) for i in range(20)])
    assert len(set(numbers)) == 10 and numbers[0] == numbers[1] == "tenth 0" and numbers[-1] == "tenth 9"


def test_the_criterion_of_multi_label_is_the_mean_of_binary_cross_entropies() -> None:
    chance = np.random.default_rng(0)
    logits, labels = chance.normal(size=(6, 4)), (chance.random((6, 4)) < 0.4).astype(float)
    weights, smoothing = [1.0, 3.0, 0.5, 2.0], 0.2
    expected = 0.0
    for i in range(6):
        for k in range(4):
            p, y = 1 / (1 + np.exp(-logits[i, k])), (1 - smoothing) * labels[i, k] + smoothing / 2
            expected -= (weights[k] * y * np.log(p) + (1 - y) * np.log(1 - p)) / 24
    own = BinaryCrossEntropy(torch.tensor(weights), smoothing)
    assert float(own(torch.tensor(logits), torch.tensor(labels))) == pytest.approx(expected)
    truth = np.where(labels == 1, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits))).mean(1)
    np.testing.assert_allclose(own.confidence(torch.tensor(logits), torch.tensor(labels)).numpy(), truth)


def test_the_criterion_of_an_experiment_is_that_of_its_task() -> None:
    labels = torch.tensor([[1.0, 0, 0, 1], [1, 1, 0, 1], [1, 0, 0, 0], [1, 0, 0, 0]])
    chosen = experiment(**OPTIONS["multi-label"], train__class_weights="inverse")
    own = criterion_of(chosen, labels, LABELS, torch.device("cpu"))
    # even: always present; prime 3 : 1; square: never present; above six 2 : 2
    same = BinaryCrossEntropy(torch.tensor([1.0, 3.0, 1.0, 1.0]))
    logits = torch.randn(4, 4)
    assert isinstance(own, BinaryCrossEntropy) and own(logits, labels) == same(logits, labels)
    squared = criterion_of(experiment(**OPTIONS["regression"]), torch.zeros(2, 1), ["digit"], torch.device("cpu"))
    assert isinstance(squared, SquaredError)
    assert float(squared(torch.tensor([[1.0]]), torch.tensor([[4.5 + 2.9]]))) == pytest.approx(0, abs=1e-6)
    assert float(squared(torch.tensor([[0.0]]), torch.tensor([[4.5 + 5.8]]))) == pytest.approx(4, rel=1e-6)
    assert type(criterion_of(experiment(), torch.tensor([0, 1]), ["a", "b"], torch.device("cpu"))) is Criterion


def test_thresholds_decide_which_labels_are_predicted() -> None:
    task = task_of(MultiLabel(threshold=0.6, thresholds={"b": 0.2}), ["a", "b", "c"])
    assert task.decide(np.array([0.6, 0.2, 0.59])) == ("a", "b")
    assert task.decide(np.zeros(3)) == ()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(1500)
def test_runs_over_three_nodes_and_after_a_kill_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run over SuperLink and three SuperNodes that is killed and resumed gives the model of a run in one process."""
    monkeypatch.chdir(tmp_path)
    options = {**OPTIONS["multi-label"], "data__clients": 3, "federation": {"rounds": 6, "wait_seconds": 600}}
    options["data__missing"] = {"unimodal_clients": {"audio": 0.34}}
    path = tmp_path / "facts.yaml"
    path.write_text(yaml.safe_dump(json.loads(experiment(**options, name="facts").to_json())))
    program = [executable("fedmosaic"), "run", str(path)]
    command = [*program, "--engine", "processes"]
    lines = tmp_path / "runs" / "facts" / "metrics.jsonl"
    with running(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (lines.exists() and lines.read_text().count("\n") >= 3):
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    assert not (lines.parent / "summary.json").exists()
    for more in ([*command, "--resume"], [*program, "--engine", "inprocess", "--run-dir", "whole"]):
        done = subprocess.run(more, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    resumed, whole = (json.loads((f / "summary.json").read_text()) for f in (lines.parent, tmp_path / "whole"))
    assert resumed["resumed"] and resumed["figures"] == whole["figures"]
    assert resumed["intervals"] == whole["intervals"]
    models = [load_file(folder / "model.safetensors") for folder in (lines.parent, tmp_path / "whole")]
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert call("predict", lines.parent, "--shard", tmp_path / "shards" / "facts" / "test") == 0
    assert call("compare", lines.parent, tmp_path / "whole") == 0


def test_sums_of_a_few_values_never_leave_a_site() -> None:
    task = task_of(experiment(**OPTIONS["regression"]).task, ["digit"])
    for count, leaves in ((4, False), (5, True)):
        values = np.arange(count, dtype=float)[:, None]
        told = {"audio": tally(task.observe(values, values))}
        assert bool(Policy().counts(told, "regression")) == leaves
        assert bool(Policy(min_cell=6).counts(told, "regression")) is False
        assert Policy().counts(told, "single-label")
