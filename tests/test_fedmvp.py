"""FedMVP's losses against plain loops in float64, and the options of training it uses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import experiment, make_pictures

from client.methods.base import Round
from client.methods.fedmvp import FedMVP, alignment_loss, contrastive_loss
from client.methods.shared.criterion import Criterion
from client.optimizer import make_optimizer
from client.schedule import Schedule
from client.site import Site
from client.train import train
from common.config.experiment import Train
from common.encoders.image import ImageEncoder
from common.models.joint import Joint, JointModel
from common.types import Batch, Origin

CLASSES = 3
Rows = list[list[float]]


def model_for(*modalities: str) -> JointModel:
    torch.manual_seed(2)
    encoders = {m: ImageEncoder(8, 1, "cnn", 6) for m in modalities}
    return Joint(width=8, heads=2, joint_heads=2, depth=1).build(encoders, CLASSES).double().eval()


def batch_for(*modalities: str, missing: float = 0.0) -> Batch:
    batch = make_pictures(modalities, 14, CLASSES, missing=missing)
    return Batch({m: x.double() for m, x in batch.inputs.items()}, batch.origin, batch.labels)


def terms(method: FedMVP, model: JointModel, batch: Batch) -> dict[str, float]:
    context = method.begin_round(model, batch, Round(1, frozenset(batch.modalities), 8))
    return {name: float(value.detach()) for name, value in method.loss(model, batch, context).items()}


def contrast_by_loops(joint: Rows, single: Rows, tau: float) -> float:
    z, total = joint + single, 0.0

    def s(u: list[float], v: list[float]) -> float:
        return math.exp(sum(a * b for a, b in zip(u, v, strict=True)) / tau)

    for i in range(len(z)):
        positive = s(joint[i % len(joint)], single[i % len(joint)])
        total -= math.log(positive / sum(s(z[i], z[k]) for k in range(len(z)) if k != i))
    return total / len(z)


def cross_entropy_by_loops(logits: Rows, labels: list[int]) -> float:
    total = 0.0
    for row, y in zip(logits, labels, strict=True):
        total -= row[y] - math.log(sum(math.exp(x) for x in row))
    return total / len(labels)


def align_by_loops(joint: Rows, single: Rows, joint_logits: Rows, single_logits: Rows, labels: list[int]) -> float:
    if cross_entropy_by_loops(single_logits, labels) >= cross_entropy_by_loops(joint_logits, labels):
        return 0.0
    squares = sum((a - b) ** 2 for u, v in zip(joint, single, strict=True) for a, b in zip(u, v, strict=True))
    return math.sqrt(squares) / len(labels)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_contrastive_loss_by_loops(rows: int) -> None:
    rng = torch.Generator().manual_seed(rows)
    joint, single = (torch.randn(rows, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    joint, single = 0.7 * torch.nn.functional.normalize(joint), torch.nn.functional.normalize(single)
    expected = contrast_by_loops(joint.tolist(), single.tolist(), 0.1)
    assert float(contrastive_loss(joint, single, 0.1)) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("better", [True, False])
def test_alignment_loss_by_loops_and_its_gate(better: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    joint, single = (torch.randn(6, 5, generator=rng, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(CLASSES, (6,), generator=rng)
    right, guess = 3 * torch.nn.functional.one_hot(labels, CLASSES).double(), torch.zeros(6, CLASSES).double()
    logits = (guess, right) if better else (right, guess)  # of the joint vectors, of the single ones
    got = float(alignment_loss(joint, single, *logits, labels, Criterion()))
    expected = align_by_loops(joint.tolist(), single.tolist(), *(u.tolist() for u in logits), labels.tolist())
    assert got == pytest.approx(expected, rel=1e-12)
    assert (got > 0) == better


def test_the_gate_is_one_for_the_batch_and_gradients_reach_both() -> None:
    labels = torch.tensor([0, 1])
    joint, single = torch.randn(2, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    # Alone the second example is worse, but the mean over both is better.
    single_logits, joint_logits = torch.tensor([[9.0, 0, 0], [0.1, 0, 0]]), torch.tensor([[0.0, 9, 0], [0, 0.1, 0]])
    alignment_loss(joint, single, joint_logits, single_logits, labels, Criterion()).backward()
    assert joint.grad is not None and single.grad is not None
    assert joint.grad.any(1).all()
    torch.testing.assert_close(joint.grad, -single.grad)


def test_equal_representations_have_no_gradient_that_is_not_a_number() -> None:
    joint = torch.ones(2, 4, requires_grad=True)
    alignment_loss(
        joint, torch.ones(2, 4), torch.zeros(2, 3), torch.eye(3)[:2], torch.tensor([0, 1]), Criterion()
    ).backward()
    assert joint.grad is not None and joint.grad.isfinite().all()


@pytest.mark.parametrize(("modalities", "missing"), [("iv", 0.0), ("iv", 0.4), ("abc", 0.4)])
def test_the_whole_objective_over_the_rows_that_have_each_modality(modalities: str, missing: float) -> None:
    model, batch = model_for(*modalities), batch_for(*modalities, missing=missing)
    got = terms(FedMVP(contrastive_weight=0.3, alignment_weight=0.7, temperature=0.2), model, batch)
    with torch.no_grad():
        joined = model.join(batch)
    contrast = align = 0.0
    for m in modalities:
        rows = [i for i in range(len(batch)) if batch.origin[m][i] != Origin.MISSING]
        joint, single = joined.joint[rows].tolist(), joined.single[m][rows].tolist()
        labels = batch.labels[rows].tolist()
        alone = (joined.single[m][rows] @ model.classifier.weight.T + model.classifier.bias).tolist()
        contrast += contrast_by_loops(joint, single, 0.2)
        align += align_by_loops(joint, single, joined.logits[rows].tolist(), alone, labels)
    expected = {"fused": cross_entropy_by_loops(joined.logits.tolist(), batch.labels.tolist()),
                "contrastive": 0.3 * contrast, "alignment": 0.7 * align}  # fmt: skip
    assert got == pytest.approx(expected, rel=1e-9)


def test_generated_values_count_like_observed_ones() -> None:
    model, batch = model_for("i", "v"), batch_for("i", "v")
    made = Batch(batch.inputs, {**batch.origin, "v": torch.full((14,), int(Origin.GENERATED))}, batch.labels)
    assert terms(FedMVP(), model, made) == terms(FedMVP(), model, batch)


def test_a_weight_of_zero_switches_its_term_off() -> None:
    model, batch = model_for("i", "v"), batch_for("i", "v")
    assert set(terms(FedMVP(contrastive_weight=0), model, batch)) == {"fused", "alignment"}
    assert set(terms(FedMVP(alignment_weight=0), model, batch)) == {"fused", "contrastive"}


def test_rows_without_anything_leave_the_losses_finite() -> None:
    model, batch = model_for("i", "v"), batch_for("i", "v").only([])
    assert all(math.isfinite(value) for value in terms(FedMVP(), model, batch).values())


def test_fedmvp_comes_with_its_strategy_and_model() -> None:
    chosen = experiment(method="fedmvp")
    paper = {"importance": "degree", "representation": "joint", "compare": "representation", "sharpness": 1.0}
    assert chosen.strategy == {"name": "cka", **paper}
    assert chosen.model.architecture is not None and chosen.model.architecture["name"] == "joint"
    assert experiment(method="co-attention").strategy == {"name": "fedavg"}


@pytest.mark.parametrize(("options", "kind"), [({}, torch.optim.SGD), ({"optimizer": "adamw"}, torch.optim.AdamW)])
def test_the_optimizer_is_the_one_asked_for(options: dict[str, Any], kind: type) -> None:
    model = model_for("i")
    model.branches["i"].requires_grad_(False)
    optimizer = make_optimizer(model, Train(lr=0.1, weight_decay=0.3, **options))
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.1 and group["weight_decay"] == 0.3
    assert len(group["params"]) == sum(value.requires_grad for value in model.parameters())


def test_the_cosine_falls_over_the_whole_run_and_the_constant_does_not() -> None:
    cosine = Schedule(Train(lr=0.2, schedule="cosine", epochs=3), 5)
    constant = Schedule(Train(lr=0.2, epochs=3), 5)
    for r in range(1, 6):
        for e in range(3):
            expected = 0.2 * (0.5 * (1 + math.cos(math.pi * ((r - 1 + e / 3) / 5))))
            assert list(cosine.passes(r, 4))[e] == [expected] * 4
            assert list(constant.passes(r, 4))[e] == [0.2] * 4
    assert next(cosine.passes(1, 1)) == [0.2]


def test_a_schedule_changes_what_training_does(tiny_shards: Path) -> None:
    moved = {}
    for schedule in ("constant", "cosine"):
        chosen = experiment(method="fedavg", train__schedule=schedule, train__epochs=2)
        for number in (1, 2):
            here = Site(tiny_shards / "client-0").open(chosen)
            before = [value.detach().clone() for value in here.model.parameters()]
            train(here.model, here.loaded.examples, chosen, number, "x")
            steps = zip(here.model.parameters(), before, strict=True)
            moved[schedule, number] = sum(float((a - b).detach().abs().sum()) for a, b in steps)
    assert moved["cosine", 1] < moved["constant", 1]
    assert moved["cosine", 2] < 0.5 * moved["constant", 2]
