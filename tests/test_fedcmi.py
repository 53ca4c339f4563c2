"""FedCMI against derivations that share no code with it (NumPy, loops, formulas of docs/methods.md section 1)."""

import math

import numpy as np
import pytest
import torch
from conftest import make_pictures

from client.methods.base import Round
from client.methods.fedcmi import FedCMI, class_temperatures, dominant_modality, infiltration_loss
from client.methods.shared.criterion import Criterion
from common.encoders.image import ImageEncoder
from common.models.two_projector import TwoProjectorModel
from common.types import Batch

CLASSES = 3


def two_projector(seed: int = 1, modalities: tuple[str, ...] = ("a", "v")) -> TwoProjectorModel:
    torch.manual_seed(seed)
    return TwoProjectorModel(
        {m: ImageEncoder(8, 1, "cnn", 5) for m in modalities},
        CLASSES,
        5,
        1,
        shared=False,
        fill="infiltration",
    )


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x - max(row)) for x in row]
    return [p / sum(powers) for p in powers]


def test_temperature_by_hand() -> None:
    # Class 0: A = 0.8, V = 0.2, r = 4. Class 1: A = 0.6, V = 0.6, r = 1. Class 2 is absent. rbar = 2.5.
    dominant = torch.tensor([0.9, 0.7, 0.6])
    weak = torch.tensor([0.1, 0.3, 0.6])
    got = class_temperatures(dominant, weak, torch.tensor([0, 0, 1]), CLASSES, kappa=2.0)
    expected = [1 / (1 + 2 * math.log(4 / 2.5)), 1.0, 1.0]
    assert got.tolist() == pytest.approx(expected, rel=1e-6)


def test_temperature_swaps_roles_when_the_mean_ratio_is_below_one() -> None:
    # r = [0.25, 1], rbar = 0.625 < 1: with 1/r = [4, 1] and 1/rbar = 1.6, class 0 is above.
    dominant, weak = torch.tensor([0.2, 0.6]), torch.tensor([0.8, 0.6])
    got = class_temperatures(dominant, weak, torch.tensor([0, 1]), CLASSES, kappa=2.0)
    assert got.tolist() == pytest.approx([1 / (1 + 2 * math.log(4 / 1.6)), 1.0, 1.0], rel=1e-6)


def test_temperature_survives_zero_confidence_and_missing_values() -> None:
    nan = math.nan
    got = class_temperatures(
        torch.tensor([0.5, 0.5, nan]), torch.tensor([0.0, 0.5, 0.3]), torch.tensor([0, 1, 2]), 3, 2.0
    )
    assert got.isfinite().all()
    assert got[2] == 1.0
    assert (got > 0).all() and (got <= 1).all()
    empty = class_temperatures(torch.tensor([nan]), torch.tensor([nan]), torch.tensor([0]), 3, 2.0)
    assert empty.tolist() == [1.0, 1.0, 1.0]


def test_infiltration_loss_by_loops() -> None:
    rng = np.random.default_rng(0)
    taught, student = rng.normal(size=(6, CLASSES)), rng.normal(size=(6, CLASSES))
    labels, temperature = [0, 1, 2, 2, 1, 0], [0.5, 1.0, 0.8]
    total = 0.0
    for i, y in enumerate(labels):
        t = softmax([x / temperature[y] for x in taught[i]])
        q = softmax([x / temperature[y] for x in student[i]])
        total -= sum(t[c] * math.log(q[c]) for c in range(CLASSES))
    got = infiltration_loss(
        torch.tensor(taught),
        torch.tensor(student),
        torch.tensor(labels),
        torch.tensor(temperature).double(),
        Criterion(),
    )
    assert float(got) == pytest.approx(total / 6, rel=1e-6)


def test_infiltration_reaches_only_encoder_infiltration_projector_and_classifier_of_the_weak_modality() -> None:
    model, batch = two_projector(), make_pictures("av", 12, CLASSES)
    method = FedCMI(mu=0.0)
    context = method.begin_round(model.eval(), batch, Round(2, frozenset({"a", "v"}), 8))
    features = model.features(batch)
    own = {m: model.classify(m, s) for m, s in features.own.items()}
    weak = ({"a", "v"} - {dominant_modality(own, batch, Criterion())}).pop()
    method.loss(model, batch, context)["infiltration"].backward()
    reached = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    expected = {
        name
        for name, _ in model.named_parameters()
        if name.startswith(
            tuple(f"branches.{weak}.{part}." for part in ("encoder", "infiltration_projector", "classifier"))
        )
    }
    assert reached == expected
    assert context.teacher is not None
    assert all(value.grad is None for value in context.teacher.parameters())


def test_the_teacher_is_the_received_model_not_the_trained_one() -> None:
    model, batch = two_projector(), make_pictures("av", 12, CLASSES)
    context = FedCMI().begin_round(model.eval(), batch, Round(2, frozenset({"a", "v"}), 8))
    before = [value.clone() for value in model.parameters()]
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    assert context.teacher is not None
    assert all(torch.equal(a, b) for a, b in zip(before, context.teacher.parameters(), strict=True))
    assert not context.teacher.training


def test_whole_objective_by_loops() -> None:
    model, batch = two_projector(), make_pictures("av", 10, CLASSES, seed=4)
    method = FedCMI(unimodal_weight=2.0, infiltration_weight=0.7, mu=0.1, kappa=2.0)
    context = method.begin_round(model.eval(), batch, Round(2, frozenset({"a", "v"}), 4))
    terms = {name: float(value.detach()) for name, value in method.loss(model, batch, context).items()}

    labels = batch.labels.tolist()
    heads, infiltrated, s = {}, {}, {}
    with torch.no_grad():
        for m in ("a", "v"):
            branch = model.branches[m]
            z = branch.encoder(batch.inputs[m])
            s[m] = branch.self_projector(z)
            heads[m] = branch.classifier(s[m]).double().tolist()
            infiltrated[m] = branch.classifier(branch.infiltration_projector(z)).double().tolist()
        fused = model.fusion(torch.cat([s["a"], s["v"]], 1)).double().tolist()
    given = {m: [softmax(row)[y] for row, y in zip(heads[m], labels, strict=True)] for m in heads}
    d = "a" if sum(given["a"]) >= sum(given["v"]) else "v"
    w = "v" if d == "a" else "a"
    ratios = {}
    for c in set(labels):
        rows = [i for i, y in enumerate(labels) if y == c]
        ratios[c] = (sum(given[d][i] for i in rows) / len(rows)) / (sum(given[w][i] for i in rows) / len(rows))
    mean = sum(ratios.values()) / len(ratios)
    if mean < 1:
        ratios, mean = {c: 1 / r for c, r in ratios.items()}, 1 / mean
    t_of = {c: 1 / (1 + 2 * math.log(r / mean)) if r > mean else 1.0 for c, r in ratios.items()}
    l_inf = 0.0
    for i, y in enumerate(labels):
        t = softmax([x / t_of[y] for x in heads[d][i]])  # the teacher still equals the model
        q = softmax([x / t_of[y] for x in infiltrated[w][i]])
        l_inf -= sum(a * math.log(b) for a, b in zip(t, q, strict=True)) / len(labels)
    nll = {m: -sum(math.log(p) for p in given[m]) / len(labels) for m in given}
    fused_nll = -sum(math.log(softmax(row)[y]) for row, y in zip(fused, labels, strict=True)) / len(labels)
    assert terms["fused"] == pytest.approx(fused_nll, rel=1e-5)
    assert terms["unimodal"] == pytest.approx(2 * (nll["a"] + nll["v"]), rel=1e-5)
    assert terms["infiltration"] == pytest.approx(0.7 * l_inf, rel=1e-5)
    assert terms["proximal"] == 0.0


def test_nothing_infiltrates_in_the_first_round() -> None:
    model, batch = two_projector(), make_pictures("av", 10, CLASSES)
    method = FedCMI()
    context = method.begin_round(model.eval(), batch, Round(1, frozenset({"a", "v"}), 4))
    assert "infiltration" not in method.loss(model, batch, context)


def test_temperature_off_means_one_for_every_class_not_no_loss() -> None:
    model, batch = two_projector(), make_pictures("av", 10, CLASSES)
    method = FedCMI(temperature=False)
    context = method.begin_round(model.eval(), batch, Round(2, frozenset({"a", "v"}), 4))
    assert all((t == 1).all() for t in context.temperatures.values())
    assert float(method.loss(model, batch, context)["infiltration"].detach()) > 0


def test_a_unimodal_client_fills_the_missing_slot_with_its_infiltration_feature_and_has_no_other_loss() -> None:
    model, whole = two_projector(), make_pictures("av", 7, CLASSES)
    for m, slots in (("a", (0, 1)), ("v", (1, 0))):  # slots of (self, infiltration) in the fusion's input
        batch = Batch({m: whole.inputs[m]}, {m: whole.origin[m]}, whole.labels)
        branch = model.branches[m]
        with torch.no_grad():
            z = branch.encoder(batch.inputs[m])
            parts = {slots[0]: branch.self_projector(z), slots[1]: branch.infiltration_projector(z)}
            expected = torch.cat([parts[0], parts[1]], 1) @ model.fusion.weight.T + model.fusion.bias
        assert torch.allclose(model.predict(batch), expected, atol=1e-6)
        assert torch.allclose(model.predict(whole.only([m])), expected, atol=1e-6)
        method = FedCMI(mu=0.0)
        context = method.begin_round(model.eval(), batch, Round(2, frozenset({m}), 4))
        assert set(method.loss(model, batch, context)) == {"fused"}


def test_with_three_modalities_the_most_confident_one_an_example_has_fills_the_missing_slot() -> None:
    model = two_projector(modalities=("a", "b", "c"))
    batch = make_pictures("abc", 9, CLASSES).only("ac")
    got = model.predict(batch)
    with torch.no_grad():
        for i in range(len(batch)):
            p, s, sure = {}, {}, {}
            for m in "ac":
                branch = model.branches[m]
                z = branch.encoder(batch.inputs[m][i : i + 1])
                s[m], p[m] = branch.self_projector(z), branch.infiltration_projector(z)
                sure[m] = float(branch.classifier(s[m]).softmax(1).max())
            filler = p["a"] if sure["a"] >= sure["c"] else p["c"]
            assert torch.allclose(got[i], model.fusion(torch.cat([s["a"], filler, s["c"]], 1))[0], atol=1e-5)


def test_the_proximal_term_is_half_mu_times_the_squared_distance() -> None:
    model, batch = two_projector(), make_pictures("av", 6, CLASSES)
    method = FedCMI(mu=0.5)
    context = method.begin_round(model.eval(), batch, Round(1, frozenset({"a", "v"}), 4))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1)
    count = sum(value.numel() for value in model.parameters())
    assert float(method.loss(model, batch, context)["proximal"].detach()) == pytest.approx(
        0.25 * 0.01 * count, rel=1e-4
    )
