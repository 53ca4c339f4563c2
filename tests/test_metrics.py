"""Every metric equals scikit-learn's on the pooled examples, over any division of the examples into sites."""

import json
import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from common.config.component import find, own_names
from common.config.metrics import key_of
from common.config.task import MultiLabel, Regression, SingleLabel
from common.evaluation.bootstrap import intervals
from common.evaluation.evaluate import Scored
from common.evaluation.figures import Named, figures, standard
from common.metrics.base import Metric
from common.tasks.base import Task
from common.tasks.find import task_of
from common.tasks.observed import Tally, WrittenPart, check_whole, read_tally, tally
from common.words.figures import LEADING, TITLES
from fedmosaic.testing import MetricContract

CLASSES = ("a", "b", "c", "d")
SINGLE = task_of(SingleLabel(), CLASSES)
THRESHOLDS = {"b": 0.3, "d": 0.7}
MULTI = task_of(MultiLabel(thresholds=THRESHOLDS), CLASSES)
REGRESSION = task_of(Regression(mean={"a": 5.0}, std={"a": 2.0}), ("a", "b"))


def drawn(task: Task, seed: int, count: int, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Random scores and targets. coarse: with many equal scores."""
    chance = np.random.default_rng(seed)
    logits = torch.tensor(chance.normal(scale=3, size=(count, len(task.classes))))
    scores = task.scores(logits.round() if coarse else logits).numpy()
    if task is SINGLE:
        return scores, chance.integers(len(CLASSES), size=count)
    if task is MULTI:
        return scores, (chance.random((count, len(CLASSES))) < [0.5, 0.2, 0.8, 0.05]).astype(float)
    return scores, scores + chance.normal(size=scores.shape)


def merged(task: Task, scores: np.ndarray, targets: np.ndarray, cuts: list[int]) -> Tally:
    """The sum of the tallies of sites that have the examples between the cuts, after a way through JSON."""
    edges = [0, *sorted(cut % (len(scores) + 1) for cut in cuts), len(scores)]
    whole = Tally({}, {})
    for start, end in pairwise(edges):
        own = tally(task.observe(scores[start:end], targets[start:end]))
        written = json.loads(json.dumps(own.written()))
        back = read_tally({name: WrittenPart(**part) for name, part in written.items()}, task.shapes())
        check_whole(back)
        task.check(back.parts)
        whole = whole + back
    return whole


def found(task: Task, one: Tally) -> dict[str, Any]:
    return figures({"x": one}, standard(task.name))["x"]


def expected_single(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    said, occurring = scores.argmax(1), sorted(set(targets))
    report = {"average": None, "labels": range(len(CLASSES)), "zero_division": np.nan}
    recall = sk.recall_score(targets, said, **report)
    onehot = np.eye(len(CLASSES))[targets]
    given = [k for k in range(len(CLASSES)) if 0 < onehot[:, k].sum() < len(onehot)]
    matrix = sk.multilabel_confusion_matrix(targets, said, labels=range(len(CLASSES)))
    return {
        "accuracy": sk.accuracy_score(targets, said),
        "balanced_accuracy": np.nanmean(recall),
        "sensitivity": np.nanmean(recall),
        "specificity": np.nanmean([m[0, 0] / m[0].sum() if m[0].sum() else np.nan for m in matrix]),
        "macro_f1": sk.f1_score(targets, said, average="macro", zero_division=0.0),
        "weighted_f1": sk.f1_score(targets, said, average="weighted", zero_division=0.0),
        "auroc": np.mean([sk.roc_auc_score(onehot[:, k], scores[:, k]) for k in given]) if given else np.nan,
        "average_precision": np.mean([sk.average_precision_score(onehot[:, k], scores[:, k]) for k in occurring]),
        "brier": ((scores - onehot) ** 2).sum(1).mean(),
        "confidence": scores[np.arange(len(scores)), targets].mean(),
        "calibration_error": float(
            multiclass_calibration_error(torch.tensor(scores), torch.tensor(targets), len(CLASSES))
        ),
    }  # fmt: skip


def expected_multi(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    said = scores >= [THRESHOLDS.get(name, 0.5) for name in CLASSES]
    truth = targets.astype(int)
    matrix = sk.multilabel_confusion_matrix(truth, said)
    recall = [m[1, 1] / m[1].sum() if m[1].sum() else np.nan for m in matrix]
    rest = [m[0, 0] / m[0].sum() if m[0].sum() else np.nan for m in matrix]
    given = [k for k in range(len(CLASSES)) if 0 < truth[:, k].sum() < len(truth)]
    occurring = [k for k in range(len(CLASSES)) if truth[:, k].any()]
    f1 = [sk.f1_score(truth[:, k], said[:, k]) for k in range(len(CLASSES)) if truth[:, k].any() or said[:, k].any()]
    bins = np.minimum((scores * 15).astype(int), 14)
    error = sum(abs(scores[bins == b].sum() - truth[bins == b].sum()) for b in range(15)) / scores.size
    both = np.array([recall, rest]).mean(0)
    return {
        "accuracy": sk.accuracy_score(truth, said),
        "label_accuracy": 1 - sk.hamming_loss(truth, said),
        "balanced_accuracy": np.nan if np.isnan(both).all() else np.nanmean(both),
        "sensitivity": np.nan if np.isnan(recall).all() else np.nanmean(recall),
        "specificity": np.nan if np.isnan(rest).all() else np.nanmean(rest),
        "macro_f1": np.mean(f1) if f1 else np.nan,
        "micro_f1": sk.f1_score(truth, said, average="micro", zero_division=np.nan),
        "weighted_f1": sk.f1_score(truth, said, average="weighted", zero_division=np.nan) if truth.any() else np.nan,
        "auroc": np.mean([sk.roc_auc_score(truth[:, k], scores[:, k]) for k in given]) if given else np.nan,
        "average_precision": np.mean([sk.average_precision_score(truth[:, k], scores[:, k]) for k in occurring])
        if occurring else np.nan,
        "brier": ((scores - truth) ** 2).mean(),
        "confidence": np.where(truth == 1, scores, 1 - scores).mean(),
        "calibration_error": error,
    }  # fmt: skip


def expected_regression(scores: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    columns = range(scores.shape[1])
    with np.errstate(invalid="ignore", divide="ignore"):
        pearson = [np.corrcoef(targets[:, k], scores[:, k])[0, 1] for k in columns]
    return {
        "mae": sk.mean_absolute_error(targets, scores),
        "rmse": np.mean([sk.root_mean_squared_error(targets[:, k], scores[:, k]) for k in columns]),
        "r2": sk.r2_score(targets, scores, multioutput="uniform_average"),
        "pearson": np.nan if np.isnan(pearson).all() else np.nanmean(pearson),
    }


EXPECTED = {SINGLE.name: expected_single, MULTI.name: expected_multi, REGRESSION.name: expected_regression}
TASKS = pytest.mark.parametrize("task", [SINGLE, MULTI, REGRESSION], ids=lambda task: task.name)


def assert_same(figure: float | None, wanted: float, error: float, key: str) -> None:
    assert (figure is None) == math.isnan(wanted), key
    if figure is not None:
        assert figure == pytest.approx(wanted, abs=error + 1e-6), key


@TASKS
@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(3, 60),
    cuts=st.lists(st.integers(0, 60), max_size=4),
    coarse=st.booleans(),
)
def test_merged_figures_are_those_of_the_pooled_examples(
    task: Task, seed: int, count: int, cuts: list[int], coarse: bool
) -> None:
    scores, targets = drawn(task, seed, count, coarse)
    told = found(task, merged(task, scores, targets, cuts))
    exact = found(task, tally(task.observe(scores, targets, exact=True)))
    wanted = EXPECTED[task.name](scores, targets)
    keys = {one.key for one in standard(task.name)}
    assert wanted.keys() == keys
    assert told["examples"] == exact["examples"] == count
    for key in keys:
        assert_same(told[key], wanted[key], told.get("errors", {}).get(key, 0.0), key)
        assert_same(exact[key], wanted[key], 0.0, key)
    assert "errors" not in exact


@TASKS
def test_figures_by_class_are_those_of_each_class_alone(task: Task) -> None:
    scores, targets = drawn(task, 3, 200)
    told = found(task, tally(task.observe(scores, targets, exact=True)))["by_class"]
    if task is REGRESSION:
        assert told["mae"] == pytest.approx(np.abs(scores - targets).mean(0))
        assert told["r2"] == pytest.approx(sk.r2_score(targets, scores, multioutput="raw_values"))
        return
    truth = np.eye(len(CLASSES))[targets] if task is SINGLE else targets
    said = np.eye(len(CLASSES))[scores.argmax(1)] if task is SINGLE else scores >= [0.5, 0.3, 0.5, 0.7]
    for k in range(len(CLASSES)):
        assert told["auroc"][k] == pytest.approx(sk.roc_auc_score(truth[:, k], scores[:, k]))
        assert told["average_precision"][k] == pytest.approx(sk.average_precision_score(truth[:, k], scores[:, k]))
        assert told["macro_f1"][k] == pytest.approx(sk.f1_score(truth[:, k], said[:, k]))
        assert told["sensitivity"][k] == pytest.approx(sk.recall_score(truth[:, k], said[:, k]))
        assert told["specificity"][k] == pytest.approx(sk.recall_score(1 - truth[:, k], 1 - said[:, k]))


@pytest.mark.parametrize("task", [SINGLE, MULTI], ids=lambda task: task.name)
@given(threshold=st.integers(1, 99), seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_figures_at_a_threshold_are_exact_from_histograms(task: Task, threshold: int, seed: int) -> None:
    scores, targets = drawn(task, seed, 40)
    scores = np.where(scores > 0.5, scores.round(2), scores)  # many scores are thresholds
    at = threshold / 100
    truth = np.eye(len(CLASSES))[targets] if task is SINGLE else targets
    for exact in (False, True):
        own = tally(task.observe(scores, targets, exact))
        for name, sign in (("sensitivity-at", 1), ("specificity-at", 0)):
            metric = find("metric", name)(threshold=at)
            one = Named(key_of(name, metric), metric)
            assert one.key == f"{name.replace('-', '_')}_{at:g}"
            for k, value in enumerate(one.by_class(own) or []):
                chosen = truth[:, k] == sign
                hits = (scores[:, k] >= at) == bool(sign)
                assert_same(value, hits[chosen].mean() if chosen.any() else np.nan, 1e-12, one.key)


def test_a_part_with_a_small_count_stays_at_the_site() -> None:
    scores, targets = drawn(SINGLE, 1, 60)
    own = tally(SINGLE.observe(scores, targets))
    kept = own.without_small_cells(5)
    assert "answers" in kept.parts and "scores" not in kept.parts
    assert all(part.smallest == 0 or part.smallest >= 5 for part in kept.parts.values())
    told = found(SINGLE, own + kept)
    assert told["auroc"] == pytest.approx(found(SINGLE, own)["auroc"]) and told["examples"] == 120
    assert own.without_small_cells(1) == own
    assert own.without_small_cells(61).parts == {}


class TestEveryMetric(MetricContract):
    @pytest.fixture(params=own_names("metric"))
    def metric(self, request: pytest.FixtureRequest) -> Any:
        return find("metric", request.param)()


@pytest.mark.parametrize("name", own_names("metric"))
def test_every_metric_has_a_title(name: str) -> None:
    kind = find("metric", name)
    assert issubclass(kind, Metric)
    assert key_of(name, kind()).split("_at")[0] in TITLES


def test_the_leading_metrics_exist() -> None:
    for task, keys in LEADING.items():
        assert set(keys) <= {one.key for one in standard(task)}  # type: ignore[arg-type]


@TASKS
def test_an_interval_holds_the_figure_and_narrows_with_examples(task: Task) -> None:
    widths = []
    for count in (40, 640):
        scores, targets = drawn(task, 5, count)
        told = found(task, tally(task.observe(scores, targets, exact=True)))
        bounds = intervals(Scored("x", scores, targets), task, standard(task.name), seed=1)
        assert bounds.keys() == {key for key, value in told.items() if isinstance(value, float)}
        low, high = bounds[task.main]
        assert low <= told[task.main] <= high
        widths.append(high - low)
        assert bounds == intervals(Scored("x", scores, targets), task, standard(task.name), seed=1)
    assert widths[1] < widths[0] / 2


def test_an_interval_of_a_share_is_that_of_the_binomial_distribution() -> None:
    scores, targets = drawn(SINGLE, 2, 400)
    bounds = intervals(Scored("x", scores, targets), SINGLE, standard("single-label"), seed=1)["accuracy"]
    share = sk.accuracy_score(targets, scores.argmax(1))
    error = 1.96 * math.sqrt(share * (1 - share) / 400)
    assert bounds == pytest.approx([share - error, share + error], abs=0.01)


@pytest.mark.parametrize("spoil", ["sums", "cell", "examples", "unknown", "shape"])
def test_impossible_counts_are_refused(spoil: str) -> None:
    scores, targets = drawn(SINGLE, 1, 30)
    written = tally(SINGLE.observe(scores, targets)).written()
    if spoil == "sums":
        written["answers"]["sums"] = [61.0]
    if spoil == "cell":
        written["scores"]["counts"][0] += 1
    if spoil == "examples":
        written["confusion"]["counts"][0] += 1
    if spoil == "unknown":
        written["more"] = written["answers"]
    if spoil == "shape":
        written["answers"]["at"] = [0, 7]
    with pytest.raises(ValueError, match=r"sums|counted|count|unknown|cells"):
        back = read_tally({name: WrittenPart(**part) for name, part in written.items()}, SINGLE.shapes())
        check_whole(back)
        SINGLE.check(back.parts)
