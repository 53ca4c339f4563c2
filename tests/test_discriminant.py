"""Linear discriminants from sums over sites, against scikit-learn on the pooled examples and plain loops."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from test_joint import Words

from client.methods.base import Round
from client.methods.discriminant import Discriminant
from common.blocks import learned
from common.config.task import TaskName
from common.models.discriminant import Discriminant as Options
from common.models.discriminant import DiscriminantModel
from common.types import Batch, Origin

CLASSES, WIDTHS = 4, {"a": 5, "b": 3}


def model_for(task: TaskName = "single-label", shrinkage: float = 0.2) -> DiscriminantModel:
    model = Options(shrinkage=shrinkage).build({m: Words(1, width) for m, width in WIDTHS.items()}, CLASSES)
    model.task = task
    return model.double().eval()


def examples(
    rows: int = 120, seed: int = 0, task: TaskName = "single-label", missing: float = 0.4, scale: float = 1.0
) -> Batch:
    """Examples of vectors with the norm `scale`, whose classes have different means; no row misses both modalities."""
    rng = np.random.default_rng(seed)
    single = rng.integers(0, CLASSES, rows)
    labels = single if task == "single-label" else (rng.random((rows, CLASSES)) < 0.3).astype(np.float32)
    member = np.eye(CLASSES)[single] if task == "single-label" else labels
    lacks = rng.choice([None, *WIDTHS], rows, p=[1 - missing, missing / 2, missing / 2])
    inputs, origin = {}, {}
    for number, (m, width) in enumerate(WIDTHS.items()):
        means = np.random.default_rng(100 + number).normal(size=(CLASSES, width))
        values = 3 + member @ means + rng.normal(size=(rows, width)) * np.arange(1, width + 1)
        values /= np.linalg.norm(values, axis=1, keepdims=True) / scale
        gone = lacks == m
        inputs[m] = torch.tensor(np.where(gone[:, None], 0.0, values))[:, None]
        origin[m] = torch.tensor(np.where(gone, int(Origin.MISSING), int(Origin.OBSERVED)))
    return Batch(inputs, origin, torch.tensor(labels))


def federated(model: Any, sites: list[Batch], rounds: int, sampled: Any = None, method: Any = None) -> Any:
    """The model after rounds in which the sampled sites send only their sums, and the server adds them up by block."""
    method = method or Discriminant()
    for number in range(1, rounds + 1):
        start = {name: value.clone() for name, value in learned(model).items()}
        sent = []
        for index in range(len(sites)) if sampled is None else sampled[number - 1]:
            with torch.no_grad():
                for name, value in learned(model).items():
                    value.copy_(start[name])
            context = method.begin_round(model, sites[index], Round(number, frozenset(WIDTHS), 16))
            method.end_round(model, sites[index], context)
            sent.append(({name: value.clone() for name, value in learned(model).items()}, len(sites[index])))
        total = sum(count for _, count in sent)
        with torch.no_grad():
            for name, value in learned(model).items():
                value.copy_(torch.stack([update[name] * (count / total) for update, count in sent]).sum(0))
    model.refresh()
    return model


def log_posterior(whole: Batch, test: Batch, shrinkage: float) -> np.ndarray[Any, Any]:
    """Per row: log pi plus the log likelihood ratio of each observed modality, by scikit-learn on pooled examples."""
    counts = np.bincount(whole.labels.numpy(), minlength=CLASSES)
    shares = 0.99 * counts / counts.sum() + 0.01 / CLASSES
    total = np.tile(np.log(shares), (len(test), 1))
    for m in WIDTHS:
        seen = (whole.origin[m] == Origin.OBSERVED).numpy()
        flat = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(CLASSES, 1 / CLASSES))
        # Equal priors would weigh the covariances of the classes equally, so the covariance is computed here.
        values, labels = whole.inputs[m][seen, 0].numpy(), whole.labels.numpy()[seen]
        flat.fit(values, labels)
        within = np.zeros((WIDTHS[m], WIDTHS[m]))
        for value, label in zip(values, labels, strict=True):
            apart = value - values[labels == label].mean(0)
            within += np.outer(apart, apart) / len(values)
        within = (1 - shrinkage) * within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
        for i in range(len(test)):
            if test.origin[m][i] == Origin.OBSERVED:
                for c in range(CLASSES):
                    apart = test.inputs[m][i, 0].numpy() - flat.means_[c]
                    total[i, c] -= apart @ np.linalg.inv(within) @ apart / 2
    return total - np.logaddexp.reduce(total, axis=1, keepdims=True)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=120, max_size=120), st.sampled_from([0.05, 0.3, 1.0]))
def test_any_split_into_sites_gives_the_pooled_discriminants(split: list[int], shrinkage: float) -> None:
    whole, test, places = examples(), examples(20, seed=9), np.array(split)
    sites = [whole.rows(torch.tensor(np.flatnonzero(places == site))) for site in set(split)]
    model = federated(model_for(shrinkage=shrinkage), sites, rounds=1)
    found = model.predict(test).log_softmax(1).detach().numpy()
    np.testing.assert_allclose(found, log_posterior(whole, test, shrinkage), atol=1e-6)


def test_a_modality_has_the_weights_of_scikit_learn_when_classes_are_equally_frequent() -> None:
    whole = examples(200, missing=0.0)
    balanced = whole.rows(torch.cat([torch.arange(200)[whole.labels == c][:30] for c in range(CLASSES)]))
    model = federated(model_for(), [balanced], rounds=1)
    for m in WIDTHS:
        reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.2)
        reference.fit(balanced.inputs[m][:, 0].numpy(), balanced.labels.numpy())
        values = balanced.inputs[m][:, 0]
        found = values @ model.moments(m).weight.T + model.moments(m).bias
        expected = reference.decision_function(values.numpy())
        differences = (found - found[:, :1]).numpy() - (expected - expected[:, :1])
        np.testing.assert_allclose(differences, 0, atol=1e-6)


def test_sums_of_earlier_rounds_count_as_much_as_those_of_the_last() -> None:
    sites = [examples(40, seed) for seed in range(3)]
    found = federated(model_for(), sites, rounds=3, sampled=[[0], [1], [2]])
    once = federated(model_for(), sites, rounds=1)
    for name, value in learned(found).items():
        torch.testing.assert_close(value, learned(once)[name])


def test_the_start_says_nothing_and_round_1_trains_nothing() -> None:
    site, method = examples(40), Discriminant()
    model: Any = model_for()
    assert model.predict(site).log_softmax(1).allclose(torch.full((40, CLASSES), -np.log(CLASSES), dtype=torch.float64))
    for number, trains in ((1, False), (2, True)):
        context = method.begin_round(model, site, Round(number, frozenset(WIDTHS), 16))
        method.loss(model, site, context)["fused"].backward()
        method.after_backward(model, context)
        assert any(value.grad is not None for value in model.parameters()) == trains


def test_the_length_of_features_does_not_matter() -> None:
    models = [federated(model_for(), [examples(60, scale=scale)], rounds=1) for scale in (1.0, 50.0)]
    torch.testing.assert_close(*(model.predict(examples(60, scale=7.0)) for model in models))


def test_the_first_update_is_not_much_larger_than_the_model() -> None:
    """So that `federation.max_update_ratio` does not refuse it."""
    model: Any = model_for()
    before = {name: value.clone() for name, value in learned(model).items()}
    federated(model, [examples(60, scale=100.0)], rounds=1)
    change = sum(float((value - before[name]).square().sum()) for name, value in learned(model).items())
    assert change < 4 * sum(float(value.square().sum()) for value in before.values())


def test_generated_values_enter_neither_sums_nor_prediction() -> None:
    whole = examples(60, missing=0.0)
    made = {m: origin.clone() for m, origin in whole.origin.items()}
    made["a"][:20] = Origin.GENERATED
    batch = Batch(whole.inputs, made, whole.labels)
    lacking = {"a": torch.where(made["a"] == Origin.GENERATED, int(Origin.MISSING), made["a"]), "b": made["b"]}
    without = Batch(whole.inputs, lacking, whole.labels)
    models = [federated(model_for(), [one], rounds=1) for one in (batch, without)]
    torch.testing.assert_close(models[0].predict(batch), models[1].predict(without))


def test_a_class_without_examples_has_no_evidence_and_finite_logits() -> None:
    whole = examples(100, missing=0.0)
    known = whole.rows(torch.arange(100)[whole.labels != 2])
    model = federated(model_for(), [known], rounds=1)
    for m in WIDTHS:
        assert not model.moments(m).weight[2].any()
        assert model.moments(m).bias[2] == 0
    logits = model.predict(whole)
    assert logits.isfinite().all()
    assert not (logits[whole.labels != 2].argmax(1) == 2).any()


def test_multi_label_has_the_discriminant_of_each_label_by_loops() -> None:
    whole, test, shrinkage = examples(150, task="multi-label"), examples(10, 5, "multi-label"), 0.2
    sites = [whole.rows(torch.arange(start, 150, 2)) for start in range(2)]
    found = federated(model_for("multi-label"), sites, rounds=1).predict(test).detach()
    for k in range(CLASSES):
        share = 0.99 * float(whole.labels[:, k].mean()) + 0.005
        expected = np.full(len(test), np.log(share / (1 - share)))
        for m in WIDTHS:
            seen = whole.origin[m] == Origin.OBSERVED
            values, has = whole.inputs[m][seen, 0].numpy(), whole.labels[seen, k].numpy() > 0
            sides = values[has].mean(0), values[~has].mean(0)
            apart, p = sides[0] - sides[1], has.mean()
            total = np.cov(values.T, bias=True)
            total = (1 - shrinkage) * total + shrinkage * np.trace(total) / len(total) * np.eye(len(total))
            within = total - (1 - shrinkage) * p * (1 - p) * np.outer(apart, apart)
            direction = np.linalg.inv(within) @ apart
            for i in range(len(test)):
                if test.origin[m][i] == Origin.OBSERVED:
                    expected[i] += direction @ (test.inputs[m][i, 0].numpy() - (sides[0] + sides[1]) / 2)
        np.testing.assert_allclose(found[:, k].numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", ["single-label", "multi-label"])
def test_the_shares_of_the_classes_count_all_examples(task: TaskName) -> None:
    whole = examples(80, task=task)
    model = federated(model_for(task), [whole], rounds=1)
    labels = whole.labels if task == "multi-label" else torch.nn.functional.one_hot(whole.labels, CLASSES)
    torch.testing.assert_close(model.class_shares, labels.double().mean(0))
