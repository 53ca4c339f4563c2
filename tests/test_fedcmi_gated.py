"""The gated variant of FedCMI by loops."""

import math

import pytest
import torch
from conftest import make_pictures

from client.methods.base import Round
from client.methods.fedcmi_gated import FedCMIGated, ensemble, infiltration_loss, log_prior
from client.methods.shared.criterion import Criterion
from common.encoders.image import ImageEncoder
from common.models.unimodal_heads import UnimodalHeadsModel
from common.types import Batch

NAMES, CLASSES = ("a", "v"), 3


def model() -> UnimodalHeadsModel:
    torch.manual_seed(1)
    return UnimodalHeadsModel({m: ImageEncoder(8, 1, "cnn", 5) for m in NAMES}, CLASSES).eval()


def batch() -> Batch:
    return make_pictures(NAMES, 16, CLASSES, missing=0.3)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(x) for x in row]
    return [p / sum(powers) for p in powers]


def test_the_prior_by_hand() -> None:
    got = log_prior(torch.tensor([0, 0, 2]), CLASSES)
    assert got.exp().tolist() == pytest.approx([2.1 / 3.3, 0.1 / 3.3, 1.1 / 3.3], rel=1e-5)


def test_the_teacher_is_the_mean_of_what_a_row_has() -> None:
    net, data = model(), batch()
    got = ensemble(net, data)
    for i in range(len(data)):
        z = {m: net.encode(data, m)[i] for m in NAMES}
        parts = [net.classify(m, z[m]) for m in NAMES if data.has(m)[i]]
        if len(parts) == len(NAMES):
            parts.append(net.fusion(torch.cat([z[m] for m in NAMES])))
        assert torch.allclose(got[i], torch.stack(parts).mean(0), atol=1e-5)


@pytest.mark.parametrize("gate", [True, False])
def test_infiltration_by_loops(gate: bool) -> None:
    data, rng = batch(), torch.Generator().manual_seed(2)
    logits = torch.randn(16, CLASSES, generator=rng)
    taught = logits.softmax(1)
    fused = torch.randn(16, CLASSES, generator=rng)
    heads = {m: torch.randn(16, CLASSES, generator=rng) for m in NAMES}
    expected = 0.0
    for i in range(16):
        students = [fused, *(heads[m] for m in NAMES if data.has(m)[i])]
        loss = -sum(
            t * math.log(q) for s in students for t, q in zip(taught[i].tolist(), softmax(s[i].tolist()), strict=True)
        )
        expected += loss * (float(taught[i, data.labels[i]]) if gate else 1.0) / 16
    got = infiltration_loss(logits, fused, heads, data, gate, Criterion())
    assert got.item() == pytest.approx(expected, rel=1e-5)


def test_nothing_infiltrates_in_the_first_round_nor_with_one_modality() -> None:
    net, data, method = model(), batch(), FedCMIGated()
    assert method.begin_round(net, data, Round(1, frozenset(NAMES), 8)).teacher is None
    assert method.begin_round(net, data, Round(2, frozenset("a"), 8)).teacher is None
    context = method.begin_round(net, data, Round(2, frozenset(NAMES), 8))
    assert context.teacher is not None
    terms = method.loss(net, data, context)
    torch.stack(list(terms.values())).sum().backward()
    assert all(value.grad is None for value in context.teacher.parameters())


def test_without_prior_and_infiltration_it_is_fedavg_with_heads() -> None:
    from client.methods.fedavg_heads import FedAvgHeads

    net, data = model(), batch()
    method = FedCMIGated(prior_weight=0, infiltration_weight=0)
    ours = method.loss(net, data, method.begin_round(net, data, Round(2, frozenset(NAMES), 8)))
    theirs = FedAvgHeads().loss(net, data, Criterion())
    assert {k: v.item() for k, v in ours.items()} == pytest.approx({k: v.item() for k, v in theirs.items()})
