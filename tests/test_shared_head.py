"""The head whose weights the modalities share, and the method fedmvp-shared, against plain loops in float64."""

import math
from typing import Any

import pytest
import torch
from test_fedmvp import align_by_loops, contrast_by_loops, cross_entropy_by_loops
from test_joint import Words
from torch import nn

from client.methods.base import Round
from client.methods.fedmvp_shared import FedMVPShared
from common.models.joint_shared import JointShared, JointSharedModel, SharedHeadModel
from common.types import Batch, Origin
from fedmosaic.testing.examples import make_batch

CLASSES, WIDTHS = 3, {"a": 6, "b": 4}
OPTIONS: dict[str, Any] = {"width": 8, "heads": 2, "joint_heads": 2, "depth": 1}


def model_for(joint: bool) -> SharedHeadModel | JointSharedModel:
    """A model whose zeros are replaced by random numbers."""
    torch.manual_seed(4)
    encoders = {m: Words(3, width) for m, width in WIDTHS.items()}
    model = JointShared(joint=joint, **OPTIONS).build(encoders, CLASSES)
    for name, value in model.named_parameters():
        if ".own." in name or name.startswith("classifier"):
            nn.init.normal_(value)
    return model.double().eval()


def batch_for() -> Batch:
    """Twelve rows: the first four complete, then rows without "a", without "b", and with one generated value."""
    batch = make_batch({m: (3, width) for m, width in WIDTHS.items()}, 12, CLASSES)
    origin = {m: torch.full((12,), int(Origin.OBSERVED)) for m in WIDTHS}
    origin["a"][4:6], origin["b"][6:8] = Origin.MISSING, Origin.MISSING
    origin["a"][8:10], origin["b"][10:12] = Origin.GENERATED, Origin.GENERATED
    return Batch({m: x.double() for m, x in batch.inputs.items()}, origin, batch.labels)


def part_by_loops(model: Any, modality: str, values: list[float]) -> list[float]:
    shared, own = model.head.weight.tolist(), model.branches[modality].own.weight.tolist()
    return [sum((shared[k][j] + own[k][j]) * z for j, z in enumerate(values)) for k in range(CLASSES)]


def logits_by_loops(model: Any, batch: Batch, only: str | None = None) -> list[list[float]]:
    """The head's logits of the rows, from observed values; with `only`, the view of one modality."""
    found = []
    for i in range(len(batch)):
        row = model.head.bias.tolist()
        for m in WIDTHS:
            if only == m or (only is None and batch.origin[m][i] == Origin.OBSERVED):
                mean = batch.inputs[m][i].mean(0).tolist()
                row = [u + v for u, v in zip(row, part_by_loops(model, m, mean), strict=True)]
        found.append(row)
    return found


def test_only_observed_values_are_in_the_sum_and_narrow_features_use_the_first_columns() -> None:
    model, batch = model_for(joint=False), batch_for()
    expected = torch.tensor(logits_by_loops(model, batch), dtype=torch.float64)
    torch.testing.assert_close(model.predict(batch), expected)


def test_the_joint_part_is_added_with_its_scale_and_starts_at_zero() -> None:
    torch.manual_seed(4)
    fresh = JointShared(**OPTIONS).build({m: Words(3, width) for m, width in WIDTHS.items()}, CLASSES).double().eval()
    batch, expected = batch_for(), torch.tensor(logits_by_loops(fresh, batch_for()), dtype=torch.float64)
    torch.testing.assert_close(fresh.predict(batch), expected)
    model = model_for(joint=True)
    assert isinstance(model, JointSharedModel)
    with torch.no_grad():
        h = model.join(batch).joint
        added = 10 * nn.functional.linear(model.refine(h) + h, model.classifier.weight, model.classifier.bias)
        head = torch.tensor(logits_by_loops(model, batch), dtype=torch.float64)
        torch.testing.assert_close(model.predict(batch), head + added)


def views_by_loops(model: Any, batch: Batch, rows: dict[str, list[int]]) -> float:
    total = 0.0
    for m, chosen in rows.items():
        logits = logits_by_loops(model, batch, only=m)
        for i in chosen:
            total -= logits[i][batch.labels[i]] - math.log(sum(math.exp(u) for u in logits[i]))
    return total / len(batch)


@pytest.mark.parametrize("joint", [False, True])
def test_the_terms_by_loops(joint: bool) -> None:
    model, batch = model_for(joint), batch_for()
    method = FedMVPShared(view_weight=0.7, generated_weight=0.3, contrastive_weight=0.2, alignment_weight=0.4)
    context = method.begin_round(model, batch, Round(1, frozenset(WIDTHS), 8))
    found = {name: float(value.detach()) for name, value in method.loss(model, batch, context).items()}
    labels = batch.labels.tolist()
    assert found["fused"] == pytest.approx(cross_entropy_by_loops(model.predict(batch).tolist(), labels))
    complete = {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}
    assert found["views"] == pytest.approx(0.7 * views_by_loops(model, batch, complete))
    assert found["generated"] == pytest.approx(0.3 * views_by_loops(model, batch, {"a": [8, 9], "b": [10, 11]}))
    assert set(found) == {"fused", "views", "generated"} | ({"contrastive", "alignment"} if joint else set())
    if isinstance(model, JointSharedModel):
        joined, contrast, align = model.join(batch), 0.0, 0.0
        for m in WIDTHS:
            rows = [i for i in range(12) if batch.origin[m][i] != Origin.MISSING]
            vectors, single = joined.joint[rows].tolist(), joined.single[m][rows].tolist()
            alone = torch.tensor(logits_by_loops(model, batch, only=m), dtype=torch.float64)[rows]
            alone = alone + model.scale * model.classifier(joined.single[m][rows])
            contrast += contrast_by_loops(vectors, single, 0.1)
            chosen = [labels[i] for i in rows]
            align += align_by_loops(vectors, single, joined.logits[rows].tolist(), alone.tolist(), chosen)
        assert found["contrastive"] == pytest.approx(0.2 * contrast)
        assert found["alignment"] == pytest.approx(0.4 * align)
