"""Imputed features and separate heads, against scikit-learn and plain loops."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge
from test_discriminant import CLASSES, WIDTHS, examples, federated
from test_joint import Words

from client.methods.base import Round
from client.methods.impute import Impute
from client.methods.separate_heads import SeparateHeads
from common.models.imputed_fusion import ImputedFusion, ImputedFusionModel
from common.models.separate_heads import SeparateHeads as Options
from common.types import Batch, Origin


def model_for(ridge: float = 0.1, widths: dict[str, int] = WIDTHS) -> ImputedFusionModel:
    torch.manual_seed(1)
    return (
        ImputedFusion(ridge=ridge).build({m: Words(1, width) for m, width in widths.items()}, CLASSES).double().eval()
    )


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 2), min_size=120, max_size=120), st.sampled_from([0.01, 0.3]))
def test_any_split_into_sites_gives_the_pooled_ridge_regression(split: list[int], ridge: float) -> None:
    whole, places = examples(), np.array(split)
    sites = [whole.rows(torch.tensor(np.flatnonzero(places == site))) for site in set(split)]
    model = federated(model_for(ridge), sites, rounds=1, method=Impute())
    both = (whole.origin["a"] == Origin.OBSERVED) & (whole.origin["b"] == Origin.OBSERVED)
    source, target = whole.inputs["a"][both, 0].numpy(), whole.inputs["b"][both, 0].numpy()
    penalty = ridge * np.trace(np.cov(source.T, bias=True)) / WIDTHS["a"] * len(source)
    expected = Ridge(alpha=penalty).fit(source, target).predict(source)
    only = Batch(
        {m: whole.inputs[m][both] for m in WIDTHS},
        {"a": whole.origin["a"][both], "b": torch.full((int(both.sum()),), int(Origin.MISSING))},
        whole.labels[both],
    )
    np.testing.assert_allclose(model.features(only)["b"].detach() / 3**0.5, expected, atol=1e-6)


def test_observed_features_stay_and_several_guesses_are_averaged() -> None:
    widths = {"a": 4, "b": 3, "c": 2}
    model: Any = model_for(widths=widths)
    for pair in model.pairs.values():
        pair.weight.normal_()
        pair.bias.normal_()
    rng = np.random.default_rng(3)
    values = {m: torch.tensor(rng.normal(size=(4, width))) for m, width in widths.items()}
    values = {m: value / value.norm(dim=1, keepdim=True) for m, value in values.items()}
    here, gone, made = int(Origin.OBSERVED), int(Origin.MISSING), int(Origin.GENERATED)
    origin = {"a": [here, here, here, gone], "b": [here, here, gone, gone], "c": [here, gone, made, gone]}
    batch = Batch({m: v[:, None] for m, v in values.items()}, {m: torch.tensor(o) for m, o in origin.items()},
                  torch.zeros(4, dtype=torch.int64))  # fmt: skip
    found = {m: value / widths[m] ** 0.5 for m, value in model.features(batch).items()}

    def guess(row: int, source: str, target: str) -> torch.Tensor:
        pair = model.pair(source, target)
        return pair.weight @ values[source][row] + pair.bias

    torch.testing.assert_close(found["c"][0], values["c"][0])
    torch.testing.assert_close(found["c"][1], (guess(1, "a", "c") + guess(1, "b", "c")) / 2)
    torch.testing.assert_close(found["b"][2], guess(2, "a", "b"))
    torch.testing.assert_close(found["c"][2], guess(2, "a", "c"))
    assert not any(found[m][3].any() for m in widths)


def test_before_the_first_sums_missing_features_are_zero() -> None:
    batch, model = examples(30), model_for()
    gone = batch.origin["a"] == Origin.MISSING
    assert gone.any() and not model.features(batch)["a"][gone].any()


@pytest.mark.parametrize("task", ["single-label", "multi-label", "regression"])
def test_separate_heads_add_log_probabilities(task: Any) -> None:
    model: Any = Options().build({m: Words(1, width) for m, width in WIDTHS.items()}, CLASSES).double().eval()
    model.task = task
    batch = examples(40)
    found = model.predict(batch).detach()
    for i in range(len(batch)):
        rows = []
        for m in WIDTHS:
            if batch.origin[m][i] == Origin.OBSERVED:
                head = model.branches[m].classifier
                rows.append((head.weight @ batch.inputs[m][i, 0] + head.bias).detach())
        if task == "regression":
            torch.testing.assert_close(found[i], torch.stack(rows).mean(0))
        elif task == "multi-label":
            odds = torch.stack([row.sigmoid() / (1 - row.sigmoid()) for row in rows]).prod(0)
            torch.testing.assert_close(found[i].exp(), odds)
        else:
            product = torch.stack([row.softmax(0) for row in rows]).prod(0)
            torch.testing.assert_close(found[i].softmax(0), product / product.sum())


def test_each_head_is_trained_by_its_own_loss_alone() -> None:
    model: Any = Options().build({m: Words(1, width) for m, width in WIDTHS.items()}, CLASSES).double()
    batch, method = examples(40), SeparateHeads()
    context = method.begin_round(model, batch, Round(1, frozenset(WIDTHS), 8))
    torch.stack(list(method.loss(model, batch, context).values())).sum().backward()
    for m in WIDTHS:
        rows = batch.origin[m] == Origin.OBSERVED
        head = model.branches[m].classifier
        logits = batch.inputs[m][rows, 0] @ head.weight.T + head.bias
        alone = torch.nn.functional.cross_entropy(logits, batch.labels[rows])
        (expected,) = torch.autograd.grad(alone, [head.weight])
        torch.testing.assert_close(head.weight.grad, expected)
